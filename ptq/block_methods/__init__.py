"""Block quantizers: weights whose neighbours share a scale; one small file for each method."""

from __future__ import annotations

from ptq.block_methods.base import BlockQuantizer
from ptq.registry import Registry

#: How the weights of `--scheme weight-only` become codes.
BLOCK_METHODS = Registry("block quantizer", "ptq.block_methods", BlockQuantizer)

__all__ = ["BLOCK_METHODS", "BlockQuantizer"]
