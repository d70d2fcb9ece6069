"""Split channels with outliers of what dense layers read into copies that add up to them.

Reference: Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier
Channel Splitting", ICML 2019, section 3.2: ``w x = w x / 2 + w x / 2``. Copies share the weight and
halve the channel, so that the tensor's range is less. A Mul divides the tensor, and copies of a few
channels are joined to it in front of the layers; others that read it see it as it was.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.passes.edit import Initializers
from ptq.graph.rescale.smooth import Smoothable, find_smoothable

Counts = npt.NDArray[np.int64]


def encode_counts(counts: Counts) -> str:
    """Return how many copies there are of each channel, 1 to 255, as text."""
    return base64.b64encode(counts.astype(np.uint8).tobytes()).decode()


def decode_counts(text: str) -> Counts:
    """Return the counts of a text.

    Raises:
        ValueError: it is none.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8).astype(np.int64)


def copied(counts: Counts) -> Counts:
    """Return the channels that are copied, each as often as it is but for the first time."""
    return np.repeat(np.arange(counts.size), counts - 1)


def apply_splits(model: ir.Model, splits: Mapping[str, str]) -> None:
    """Split channels of tensors, and repeat the weights that read them.

    Args:
        model: the prepared model, changed in place.
        splits: by the name of the tensor, as `encode_counts` writes them.

    Raises:
        ModelError: they are of another model.
    """
    found = {tensor.name: tensor for tensor in find_smoothable(model)} if splits else {}
    constants = Initializers(model)
    for name, text in splits.items():
        tensor, counts = found.get(name), _decoded(text)
        if tensor is None or counts is None or counts.size != tensor.channels or not counts.all():
            raise ModelError(
                f"the split channels of tensor '{name}' do not fit this model; they are of another "
                "one, or were made by another version of ptq: quantize it again"
            )
        if (counts > 1).any():
            _split(tensor, counts, constants)


def _decoded(text: str) -> Counts | None:
    try:
        return decode_counts(text)
    except ValueError:
        return None


def _split(tensor: Smoothable, counts: Counts, constants: Initializers) -> None:
    value, name, more = tensor.value, tensor.name, copied(counts)
    share = constants.add(f"{name}/split_by", (1 / counts).astype(np.float32))
    index = constants.add(f"{name}/split_of", more)
    mul = ir.node("Mul", [value, share], name=f"{name}/share")
    gather = ir.node("Gather", [mul.outputs[0], index], {"axis": -1}, name=f"{name}/copies")
    parts = [mul.outputs[0], gather.outputs[0]]
    concat = ir.node("Concat", parts, {"axis": -1}, name=f"{name}/split")
    widths = (counts.size, more.size, counts.size + more.size)
    nodes = (mul, gather, concat)
    for node, ending, width in zip(nodes, ("shared", "copied", "joined"), widths, strict=True):
        output = node.outputs[0]
        output.name, output.type = f"{name}/{ending}", value.type
        if value.shape is not None:
            output.shape = ir.Shape([*value.shape[:-1], width])
    maker = value.producer()
    assert maker is not None
    assert maker.graph is not None
    maker.graph.insert_after(maker, nodes)
    for reader in tensor.readers:
        reader.node.replace_input_with(0, concat.outputs[0])
        reader.repeat(constants, np.concatenate([np.arange(counts.size), more]))
