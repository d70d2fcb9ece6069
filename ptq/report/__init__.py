"""What a run found, as data, and its renderings."""

from ptq.report.placement import Candidate, Placement
from ptq.report.report import (
    DataInfo,
    Environment,
    FileInfo,
    FloatNodes,
    Output,
    Report,
    TensorInfo,
)

__all__ = [
    "Candidate",
    "DataInfo",
    "Environment",
    "FileInfo",
    "FloatNodes",
    "Output",
    "Placement",
    "Report",
    "TensorInfo",
]
