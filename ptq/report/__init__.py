"""What a run found, as data, and its renderings."""

from ptq.report.report import DataInfo, Environment, FileInfo, FloatNodes, Report, TensorInfo

__all__ = ["DataInfo", "Environment", "FileInfo", "FloatNodes", "Report", "TensorInfo"]
