"""Tensors as the model zoo ships them: serialized TensorProto files."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def parse_tensor(content: bytes) -> tuple[str, np.ndarray]:
    """Return the name and the value of a serialized TensorProto.

    Raises:
        ValueError: the bytes are no TensorProto.
    """
    import onnx

    try:
        proto = onnx.TensorProto.FromString(content)
        tensor = ir.serde.deserialize_tensor(proto)
        return proto.name, np.asarray(tensor.numpy())
    except Exception as error:  # protobuf's DecodeError has no other public base
        raise ValueError(f"not a serialized tensor: {error}") from error
