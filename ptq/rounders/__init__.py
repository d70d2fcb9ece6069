"""Rounding methods: which code each weight takes, so that outputs change least; one file each."""

from __future__ import annotations

from ptq.registry import Registry
from ptq.rounders.base import Rounder, Task

#: How weights can be rounded by the sums of products of what layers read.
ROUNDERS = Registry("rounding method", "ptq.rounders", Rounder)

__all__ = ["ROUNDERS", "Rounder", "Task"]
