"""Where the time of several models goes, layer by layer: as data, and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from ptq.report.table import aligned

#: Longest name of a layer in a table; longer ones lose their middle.
_LONGEST = 44

#: How many layers are named that got slower.
_WORST = 5


class RunKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel in onnxruntime's optimized graph."""

    name: str
    op_type: str
    ms: float


class BenchedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the network as each model runs it.

    Attributes:
        name: a node that all models have in it, or in parentheses a type of kernel that
            onnxruntime adds.
        ms: the time that each model spends in it.
        kernels: the kernels of each model.
    """

    name: str
    ms: tuple[float, ...]
    kernels: tuple[tuple[RunKernel, ...], ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time goes.

    Attributes:
        threads: threads within an operator.
        total_ms: of all kernels of each model.
        layers: in the order in which the first model runs them.
    """

    threads: int
    total_ms: tuple[float, ...]
    layers: tuple[BenchedLayer, ...]


def profile_lines(profile: Profile, labels: Sequence[str], top: int) -> list[str]:
    """Return what `ptq bench --profile` prints.

    Args:
        profile: where the time goes.
        labels: what the models are called.
        top: how many layers and types of kernels to list; those that cost most in any model.
    """
    head = [f"where the time goes, {threads_text(profile.threads)}"]
    for label in labels:
        head += [label, "ms", "share"]
    rows = [(*head, "speed-up" if len(labels) > 1 else "")]
    ranked = sorted(profile.layers, key=lambda layer: -max(layer.ms))
    rows += [_row(layer.name, layer, profile) for layer in ranked[:top]]
    rest = ranked[top:]
    if rest:
        ms = tuple(sum(each) for each in zip(*(layer.ms for layer in rest), strict=True))
        rows.append(_figures(f"{len(rest)} more", [""] * len(ms), ms, profile))
    rows.append(_figures("all kernels", [""] * len(labels), profile.total_ms, profile))
    words = {0, *range(1, 3 * len(labels), 3)}
    lines = [*_columns(rows, words), "", *_kernels(profile, labels, top)]
    for index in range(1, len(labels)):
        lines += ["", *_losers(labels[index], profile, index)]
    return lines


def _kernels(profile: Profile, labels: Sequence[str], top: int) -> list[str]:
    """Return the time of each type of kernel in each model."""
    times: dict[str, list[list[float]]] = {}
    for layer in profile.layers:
        for i, kernels in enumerate(layer.kernels):
            for kernel in kernels:
                times.setdefault(kernel.op_type, [[] for _ in labels])[i].append(kernel.ms)
    head = ["by type of kernel"]
    for label in labels:
        head += [label, "ms", "share"]
    rows: list[tuple[str, ...]] = [tuple(head)]
    for op_type, each in sorted(times.items(), key=lambda kind: -max(map(sum, kind[1])))[:top]:
        cells = [op_type]
        for ms, total in zip(each, profile.total_ms, strict=True):
            cells += [str(len(ms)), *_spent(sum(ms), total)] if ms else ["-", "", ""]
        rows.append(tuple(cells))
    return _columns(rows, {0})


def _spent(ms: float, total: float) -> tuple[str, str]:
    return f"{ms:.3f}", f"{ms / total:.1%}" if total else "-"


def _row(name: str, layer: BenchedLayer, profile: Profile) -> tuple[str, ...]:
    kernels = [kinds(found) for found in layer.kernels]
    return _figures(name, kernels, layer.ms, profile)


def _figures(
    name: str, kernels: Sequence[str], ms: Sequence[float], profile: Profile
) -> tuple[str, ...]:
    cells = [_shortened(name)]
    for kernel, each, total in zip(kernels, ms, profile.total_ms, strict=True):
        cells += [kernel, *_spent(each, total)]
    return (*cells, ", ".join(_ratio(ms[0], each) for each in ms[1:]))


def kinds(kernels: Sequence[RunKernel]) -> str:
    """Return the types of kernels: ``QLinearConv + 2 DequantizeLinear``."""
    counts = Counter(k.op_type for k in kernels)
    return " + ".join(f"{n} {op}" if n > 1 else op for op, n in counts.items()) or "-"


def _ratio(first: float, other: float) -> str:
    # below a microsecond a profile tells nothing
    return f"{first / other:.2f}x" if min(first, other) >= 1e-3 else "-"


def _losers(label: str, profile: Profile, index: int) -> list[str]:
    """Sum up which layers got faster, and name those that got slower most."""
    changes = [(layer.ms[index] - layer.ms[0], layer) for layer in profile.layers]
    won = [change for change, _ in changes if change < 0]
    lost = sorted((c for c in changes if c[0] > 0), key=lambda c: -c[0])
    lines = [
        f"{label}: {len(won)} layers faster, by {-sum(won):.3f} ms; "
        f"{len(lost)} slower, by {sum(c for c, _ in lost):.3f} ms"
    ]
    rows = [(f"  +{change:.3f} ms", layer.name) for change, layer in lost[:_WORST]]
    return [*lines, *aligned(rows, words=0)]


def _columns(rows: Sequence[tuple[str, ...]], words: set[int]) -> list[str]:
    """Align columns, those of words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    half = (_LONGEST - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def threads_text(count: int) -> str:
    """Return a number of threads for people."""
    return f"{count} thread{'s' if count > 1 else ''}"
