"""The few lines that say whether a model became integer, and why not everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ptq.runtime.layer import Layer, count_layers

#: How many reasons a summary lists, and how many operator types one line names.
_REASONS, _TYPES = 3, 6


def coverage_lines(
    layers: Sequence[Layer],
    ran_integer: Mapping[str, int],
    conversions: int,
    onnxruntime: str,
) -> list[str]:
    """Return at most six lines: the count, the kernels, why the rest is float, conversions left."""
    integer, total = count_layers(layers)
    summary = f"{integer} of {total} layers run as integer kernels in onnxruntime {onnxruntime}"
    lines = [f"{summary}; {conversions} QuantizeLinear/DequantizeLinear left"]
    if ran_integer:
        lines.append(f"  integer: {_counts(ran_integer)}")
    return lines + _float_lines(layers)


def _float_lines(layers: Sequence[Layer]) -> list[str]:
    reasons: dict[str, Counter[str]] = {}
    for layer in layers:
        if layer.kernel and not layer.integer and not layer.part_of:
            # details, such as a tensor's name, stand behind a colon
            reasons.setdefault(layer.why.partition(": ")[0], Counter())[layer.kernel] += 1
    ranked = sorted(reasons.items(), key=lambda r: (-r[1].total(), r[0]))
    # a line for the rest, unless that is one reason
    shown = ranked if len(ranked) <= _REASONS + 1 else ranked[:_REASONS]
    lines = [f"  float: {_counts(kernels)} ({why})" for why, kernels in shown]
    if rest := ranked[len(shown) :]:
        count = sum(kernels.total() for _, kernels in rest)
        lines.append(f"  float: {count} more, for {len(rest)} other reasons")
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    ranked = Counter(dict(counts)).most_common()
    shown = [f"{n} {op}" for op, n in ranked[:_TYPES]]
    rest = ranked[_TYPES:]
    if len(rest) == 1:
        shown.append(f"{rest[0][1]} {rest[0][0]}")
    elif rest:
        shown.append(f"{sum(n for _, n in rest)} more")
    return ", ".join(shown)
