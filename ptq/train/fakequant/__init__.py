"""Trained quantizers: how weights and activations are quantized while a network is trained.

A method is one file; `QAT_METHODS` finds it by itself.
"""

from __future__ import annotations

from ptq.registry import Registry
from ptq.train.fakequant.base import QatMethod

__all__ = ["QAT_METHODS", "QatMethod"]

QAT_METHODS: Registry[QatMethod] = Registry("training method", "ptq.train.fakequant", QatMethod)
