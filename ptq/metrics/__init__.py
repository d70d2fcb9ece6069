"""Figures of merit: what a model's outputs are worth, one file for each metric."""

from ptq.metrics.base import Metric, Outputs, Sums, metric_names, metrics, parse_metric

__all__ = ["Metric", "Outputs", "Sums", "metric_names", "metrics", "parse_metric"]
