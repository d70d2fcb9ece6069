"""Post-training quantization of ONNX models: a float model in, a verified int8 model out.

The public names are imported when they are first used, so that ``import ptq`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ptq.batching import BatchOptions, Checks, Task, batch
    from ptq.benching import BenchOptions, bench
    from ptq.checking import CheckOptions, check
    from ptq.cli.tasks import read_tasks
    from ptq.comparing import CompareOptions, compare
    from ptq.config import Override, QuantizeConfig
    from ptq.embedded import EmbeddedRecipe, PinnedPlacement, read_recipe
    from ptq.errors import PtqError
    from ptq.options import RunOptions
    from ptq.pipeline import Result, calibrate, inspect, quantize
    from ptq.plan import Plan
    from ptq.report import Report
    from ptq.report.batch import Batch, BatchRow
    from ptq.report.bench import Bench
    from ptq.report.check import Check
    from ptq.report.comparison import Comparison
    from ptq.report.sensitivity import Sensitivity
    from ptq.report.tuning import Tuning
    from ptq.sensing import SensitivityOptions, sensitivity
    from ptq.tune_options import TuneOptions
    from ptq.tuning import tune

__all__ = [
    "Batch",
    "BatchOptions",
    "BatchRow",
    "Bench",
    "BenchOptions",
    "Check",
    "CheckOptions",
    "Checks",
    "CompareOptions",
    "Comparison",
    "EmbeddedRecipe",
    "Override",
    "PinnedPlacement",
    "Plan",
    "PtqError",
    "QuantizeConfig",
    "Report",
    "Result",
    "RunOptions",
    "Sensitivity",
    "SensitivityOptions",
    "Task",
    "TuneOptions",
    "Tuning",
    "__version__",
    "batch",
    "bench",
    "calibrate",
    "check",
    "compare",
    "inspect",
    "quantize",
    "read_recipe",
    "read_tasks",
    "sensitivity",
    "tune",
]

_HOMES = {
    "Batch": "ptq.report.batch",
    "BatchOptions": "ptq.batching",
    "BatchRow": "ptq.report.batch",
    "Bench": "ptq.report.bench",
    "BenchOptions": "ptq.benching",
    "Check": "ptq.report.check",
    "CheckOptions": "ptq.checking",
    "Checks": "ptq.batching",
    "CompareOptions": "ptq.comparing",
    "Comparison": "ptq.report.comparison",
    "EmbeddedRecipe": "ptq.embedded",
    "Override": "ptq.config",
    "PinnedPlacement": "ptq.embedded",
    "Plan": "ptq.plan",
    "PtqError": "ptq.errors",
    "QuantizeConfig": "ptq.config",
    "Report": "ptq.report",
    "Result": "ptq.pipeline",
    "RunOptions": "ptq.options",
    "Sensitivity": "ptq.report.sensitivity",
    "SensitivityOptions": "ptq.sensing",
    "Task": "ptq.batching",
    "TuneOptions": "ptq.tune_options",
    "Tuning": "ptq.report.tuning",
    "batch": "ptq.batching",
    "bench": "ptq.benching",
    "calibrate": "ptq.pipeline",
    "check": "ptq.checking",
    "compare": "ptq.comparing",
    "inspect": "ptq.pipeline",
    "quantize": "ptq.pipeline",
    "read_recipe": "ptq.embedded",
    "read_tasks": "ptq.cli.tasks",
    "sensitivity": "ptq.sensing",
    "tune": "ptq.tuning",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ptq' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
