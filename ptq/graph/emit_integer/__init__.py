"""Turn a graph of QuantizeLinear and DequantizeLinear into one of fused integer operators.

Where onnxruntime fuses at load, the file itself then holds what is run: see docs/integer.md. A rule
is a file in ``rules``; `fuse_integer` applies them all.
"""

from ptq.graph.emit_integer.fuse import Fused, fuse_integer

__all__ = ["Fused", "fuse_integer"]
