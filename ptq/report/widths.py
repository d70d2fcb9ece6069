"""How many bits the numbers of a quantized model have, in a word and in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptq.config import FULL_BITS
from ptq.numerics.coding import Coding
from ptq.report.table import megabytes

if TYPE_CHECKING:
    from ptq.report.report import Report, TensorInfo


def quantized_title(report: Report) -> str:
    """Return what a column on the quantized model is headed: ``int8``, ``W4A4``, ``mixed``."""
    config = report.config
    said = {o.bits for o in config.overrides if o.bits is not None} - {config.bits}
    if said and len(report.weight_bits) != 1:
        return "mixed"
    if report.scheme == "static" and min(config.bits, config.activation_bits) < FULL_BITS:
        return f"W{config.bits}A{config.activation_bits}"
    return f"int{config.bits}"


def activations_line(tensors: Sequence[TensorInfo]) -> str:
    """Return how many activations have how many bits; empty if all have 8.

    Args:
        tensors: the quantized ones.
    """
    found = Counter(t.bits for t in tensors)
    if set(found) <= {FULL_BITS}:
        return ""
    said = ", ".join(f"{count} at {bits}" for bits, count in sorted(found.items(), reverse=True))
    return f"activations by their bits: {said}; the kernels are those of {FULL_BITS}"


def widths_line(weight_bits: dict[int, int]) -> str:
    """Return the mean width of weights and the share of each; empty if all have 8 bits.

    Args:
        weight_bits: how many numbers weights have, by their bits.
    """
    total = sum(weight_bits.values())
    if not total or set(weight_bits) == {8}:
        return ""
    mean = sum(bits * count for bits, count in weight_bits.items()) / total
    shares = ", ".join(
        f"{count / total:.1%} at {bits}"
        for bits, count in sorted(weight_bits.items(), reverse=True)
    )
    return f"weights have {mean:.2f} bits on average: {shares}"


def coding_line(coding: Coding) -> str:
    """Return how far an entropy coder would go with the weights."""
    zeros = coding.zeros / max(coding.weights, 1)
    return (
        f"an entropy coder would need {coding.entropy_bits:.2f} bits a weight, Huffman's "
        f"{megabytes(coding.huffman_bytes)} for all; {zeros:.1%} of weights are 0"
    )
