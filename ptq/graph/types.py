"""The graph type under the name by which the floors above know it."""

from onnx_ir import Model

__all__ = ["Model"]
