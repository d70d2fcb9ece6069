"""The model without its large weights, for the C++ functions of the onnx package.

They take one protobuf message, which holds 2 GB at most and would copy every weight.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from ptq.errors import ModelError

#: Bytes of the largest tensor that goes along: the C++ code looks at shapes, axes and scales.
_LARGEST_KEPT = 1024

#: Marks the file name of a reference; what follows is its number.
_REFERENCE = "ptq-reference:"


class Skeleton:
    """A protobuf of the model in which every large initializer is a reference.

    Attributes:
        proto: the message; references are external tensors that point nowhere.

    Raises:
        ModelError: something in the model, a name that is not UTF-8 say, cannot be written.
    """

    def __init__(self, model: ir.Model) -> None:
        held = [
            (value, value.const_value)
            for graph in model.graphs()
            for value in graph.initializers.values()
            if value.const_value is not None
        ]
        self._tensors = [tensor for _, tensor in held]
        try:
            for number, (value, tensor) in enumerate(held):
                if tensor.nbytes > _LARGEST_KEPT:
                    value.const_value = _reference(number, tensor)
                elif isinstance(tensor, ir.ExternalTensor):
                    # its folder would be forgotten on the way
                    value.const_value = ir.Tensor(tensor.numpy().copy(), name=tensor.name)
            with quiet():
                self.proto: onnx.ModelProto = ir.serde.serialize_model(model)
        except ir.serde.SerdeError as error:
            raise ModelError(f"the graph cannot be written: {root_cause(error)}") from error
        finally:
            for value, tensor in held:
                value.const_value = tensor

    def restore(self, model: ir.Model) -> None:
        """Put the large tensors back into a model made from the protobuf."""
        for graph in model.graphs():
            for value in graph.initializers.values():
                location = getattr(value.const_value, "location", None)
                if isinstance(location, str) and location.startswith(_REFERENCE):
                    tensor = self._tensors[int(location.removeprefix(_REFERENCE))]
                    tensor.name = value.name
                    value.const_value = tensor


@contextmanager
def quiet() -> Iterator[None]:
    """Silence onnx_ir, which logs what is either harmless or raised as an error afterwards."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def root_cause(error: BaseException) -> str:
    """Return the first line of the error behind an error, for onnx_ir wraps them in layers."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _reference(number: int, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        f"{_REFERENCE}{number}",
        None,
        None,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )
