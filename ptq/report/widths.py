"""How many bits the numbers of a quantized model have, in a word and in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq.config import FULL_BITS

if TYPE_CHECKING:
    from ptq.report.report import Report


def quantized_title(report: Report) -> str:
    """Return what a column on the quantized model is headed: ``int8``, ``W4A4``, ``mixed``."""
    config = report.config
    said = {o.bits for o in config.overrides if o.bits is not None} - {config.bits}
    if said and len(report.weight_bits) != 1:
        return "mixed"
    if report.scheme == "static" and min(config.bits, config.activation_bits) < FULL_BITS:
        return f"W{config.bits}A{config.activation_bits}"
    return f"int{config.bits}"


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
