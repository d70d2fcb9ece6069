"""Small quantized graphs, fused; and the arithmetic of integer kernels in numpy.

Graphs read and put out codes, so that no QuantizeLinear stands between a test and the kernel.
Weights stay within 64 of 0: kernels on x86 without VNNI add pairs of products in 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from support.models import Arrays, load
from support.nets import run, to_bytes

from ptq.graph.emit_integer import Fused, fuse_integer

_TYPES = {"float32": "float", "float64": "double"}

#: The largest magnitude of a signed weight with which sums of two products fit 16 bits.
LARGEST_WEIGHT = 64


@dataclass(frozen=True)
class Pair:
    """A quantized graph before and after.

    Attributes:
        qdq: with QuantizeLinear and DequantizeLinear.
        integer: fused.
        fused: what fusing said.
    """

    qdq: ir.Model
    integer: ir.Model
    fused: Fused

    @property
    def op_types(self) -> list[str]:
        return [node.op_type for node in self.integer.graph]

    def outputs(self, feed: Arrays) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return what the float simulation gives, and what the integer kernels give."""
        simulated, unoptimized, optimized = (
            run(model, feed, level)
            for model, level in (
                (self.qdq, "disabled"),
                (self.integer, "disabled"),
                (self.integer, "all"),
            )
        )
        for first, second in zip(unoptimized, optimized, strict=True):
            np.testing.assert_array_equal(first, second)
        return simulated, optimized


def fuse(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Pair:
    """Return a graph in ONNX text and what it is fused into, checked as every result must be.

    Args:
        text: as in ``g (uint8[N, 4] x) => (uint8[N, 4] y) { ... }``.
        constants: added as initializers; odd names stand in quotes.
    """
    constants = constants or {}
    declared = ", ".join(
        f"{_TYPES.get(str(a.dtype), a.dtype)}{list(a.shape) if a.ndim else ''} {name}"
        for name, a in constants.items()
    )
    head, brace, body = text.partition("{")
    plain = {name.strip('"'): array for name, array in constants.items()}
    qdq = load(f"{head} <{declared}> {brace}{body}" if declared else text, plain)
    return fuse_model(qdq)


def fuse_model(qdq: ir.Model) -> Pair:
    """Fuse a copy, and check that the result is valid and that a second run changes nothing."""
    for number, node in enumerate(qdq.graph):
        node.name = node.name or f"node {number}: {node.outputs[0].name}"
    integer = qdq.clone()
    fused = fuse_integer(integer)
    content = to_bytes(integer)
    onnx.checker.check_model(onnx.ModelProto.FromString(content))
    again = fuse_integer(integer)
    assert not again.kernels
    assert [entry[:2] for entry in again.left] == [entry[:2] for entry in fused.left]
    assert again.conversions == fused.conversions
    assert to_bytes(integer) == content
    assert {n.domain for n in integer.graph} - {""} == set(integer.opset_imports) - {""}
    signature = [(v.name, v.type, v.shape) for v in (*qdq.graph.inputs, *qdq.graph.outputs)]
    found = [(v.name, v.type, v.shape) for v in (*integer.graph.inputs, *integer.graph.outputs)]
    assert found == signature
    # with the defaults that users have
    ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Pair(qdq, integer, fused)


def params(**named: Sequence[float]) -> dict[str, np.ndarray]:
    """Return scale and zero point of each name as ``<name>s`` and ``<name>z``, of uint8 codes."""
    found: dict[str, np.ndarray] = {}
    for name, (scale, zero_point) in named.items():
        found[f"{name}s"] = np.float32(scale).reshape(())
        found[f"{name}z"] = np.asarray(zero_point, np.uint8)
    return found


def codes(shape: Sequence[int], seed: int = 0, dtype: str = "uint8") -> np.ndarray:
    """Return random codes over the whole range."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


def weights(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return random int8 codes that no kernel's 16-bit sums overflow with."""
    rng = np.random.default_rng(seed)
    return rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, shape).astype(np.int8)


# -- integer arithmetic, as the kernels define it --------------------------------------------------


def requantize(
    sums: np.ndarray, multiplier: np.ndarray | np.float32, zero_point: np.ndarray
) -> np.ndarray:
    """Return the codes of int32 sums: a float32 product, rounded half to even, saturated."""
    assert np.abs(sums).max(initial=0) < 2**31
    scaled = sums.astype(np.int32).astype(np.float32) * np.float32(multiplier)
    limits, zero = np.iinfo(zero_point.dtype), int(zero_point)
    rounded = np.rint(np.clip(scaled, limits.min - zero, limits.max - zero))
    return (rounded + zero).astype(zero_point.dtype)


def conv_sums(
    x: np.ndarray,
    w: np.ndarray,
    *,
    pads: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> np.ndarray:
    """Return the sums of products of a 2-D convolution; the zero points are subtracted already."""
    top, left, bottom, right = pads
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    parts = zip(np.split(windows, group, axis=1), np.split(w, group), strict=True)
    return np.concatenate(
        [np.einsum("nchwij,mcij->nmhw", a, b.astype(np.int64)) for a, b in parts], axis=1
    )
