"""The methods there are, from their registries: what `ptq methods` lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ptq.calib import Solver
    from ptq.weights import WeightQuantizer


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One range method or weight quantizer.

    Attributes:
        name: what `--calib` or `--weight-range` takes.
        kind: ``activation range`` or ``weight range``.
        title: one line.
        paper: where it comes from.
        options: its options with their defaults, as they follow the colon.
    """

    name: str
    kind: str
    title: str
    paper: str
    options: dict[str, object]


def all_methods() -> list[Method]:
    """Return every method, those of other distributions included."""
    from ptq.calib import solvers
    from ptq.weights import weight_quantizers

    return [
        *_methods("activation range", solvers()),
        *_methods("weight range", weight_quantizers()),
    ]


def _methods(kind: str, found: Mapping[str, type[Solver] | type[WeightQuantizer]]) -> list[Method]:
    return [
        Method(
            name=name,
            kind=kind,
            title=method.title,
            paper=method.paper,
            options={f.name: f.default for f in msgspec.structs.fields(method)},
        )
        for name, method in sorted(found.items())
    ]


def methods_text(methods: list[Method]) -> str:
    """Return what `ptq methods` prints."""
    lines = []
    for kind, flag in (("activation range", "--calib"), ("weight range", "--weight-range")):
        lines.append(f"{kind} methods ({flag})")
        for method in methods:
            if method.kind != kind:
                continue
            lines.append(f"  {method.name:<11} {method.title}")
            if method.options:
                options = ",".join(f"{k}={_spelled(v)}" for k, v in method.options.items())
                lines.append(f"  {'':<11} options: {method.name}:{options}")
            lines.append(f"  {'':<11} source: {method.paper}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
