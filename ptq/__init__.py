"""Post-training quantization of ONNX models: a float model in, a verified int8 model out.

The public names are imported when they are first used, so that ``import ptq`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ptq.benching import BenchOptions, bench
    from ptq.config import QuantizeConfig
    from ptq.errors import PtqError
    from ptq.options import RunOptions
    from ptq.pipeline import Result, calibrate, inspect, quantize
    from ptq.plan import Plan
    from ptq.report import Report
    from ptq.report.bench import Bench

__all__ = [
    "Bench",
    "BenchOptions",
    "Plan",
    "PtqError",
    "QuantizeConfig",
    "Report",
    "Result",
    "RunOptions",
    "__version__",
    "bench",
    "calibrate",
    "inspect",
    "quantize",
]

_HOMES = {
    "Bench": "ptq.report.bench",
    "BenchOptions": "ptq.benching",
    "Plan": "ptq.plan",
    "PtqError": "ptq.errors",
    "QuantizeConfig": "ptq.config",
    "Report": "ptq.report",
    "Result": "ptq.pipeline",
    "RunOptions": "ptq.options",
    "bench": "ptq.benching",
    "calibrate": "ptq.pipeline",
    "inspect": "ptq.pipeline",
    "quantize": "ptq.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ptq' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
