"""The methods there are, from their registries: what `ptq methods` lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One range method, weight quantizer, block quantizer, metric or training method.

    Attributes:
        name: what `--calib`, `--weight-method`, `--rounding`, `--metric` or `--fine-tune` takes.
        kind: ``activation range``, ``weight quantizer``, ``block quantizer``, ``rounding``,
            ``metric`` or ``training``.
        title: one line.
        paper: where it comes from; empty for what no paper introduced.
        good_for: when to take it; empty where nothing is said.
        options: its options with their defaults, as they follow the colon; empty or ``None`` are
            those that nothing stands for.
    """

    name: str
    kind: str
    title: str
    paper: str
    good_for: str
    options: dict[str, object]


def all_methods(training: Mapping[str, type[msgspec.Struct]]) -> list[Method]:
    """Return every method, those of other distributions included.

    Args:
        training: the training methods, which are of a layer above.
    """
    from ptq.block_methods import BLOCK_METHODS
    from ptq.calib import solvers
    from ptq.metrics import metrics
    from ptq.rounders import ROUNDERS
    from ptq.weights import weight_quantizers

    return [
        *_methods("activation range", solvers()),
        *_methods("weight quantizer", weight_quantizers()),
        *_methods("block quantizer", BLOCK_METHODS.methods()),
        *_methods("rounding", ROUNDERS.methods()),
        *_methods("metric", metrics()),
        *_methods("training", training),
    ]


def _methods(kind: str, found: Mapping[str, type[msgspec.Struct]]) -> list[Method]:
    return [
        Method(
            name=name,
            kind=kind,
            title=(method.__doc__ or "").partition("\n")[0],
            paper=str(getattr(method, "paper", "")),
            good_for=str(getattr(method, "good_for", "")),
            options={f.name: f.default for f in msgspec.structs.fields(method)},
        )
        for name, method in sorted(found.items())
    ]


#: Headings in the order of the list, each with the option that takes such a method.
_KINDS = {
    "activation range": "activation range methods (--calib)",
    "weight quantizer": "weight quantizers (--weight-method)",
    "block quantizer": "block quantizers (--weight-method with --scheme weight-only)",
    "rounding": "rounding methods (--rounding), beside nearest, adaround, brecq and qdrop",
    "metric": "metrics (ptq check --metric), or your own as package.module:function",
    "training": "training methods (--fine-tune)",
}


def methods_text(methods: Sequence[Method]) -> str:
    """Return what `ptq methods` prints."""
    lines = []
    for kind, heading in _KINDS.items():
        lines.append(heading)
        for method in methods:
            if method.kind == kind:
                lines += _described(method)
        lines.append("")
    return "\n".join(lines).rstrip()


def _described(method: Method) -> list[str]:
    lines = [f"  {method.name:<11} {method.title}"]
    given = {name: value for name, value in method.options.items() if value not in ("", None)}
    others = [name for name in method.options if name not in given]
    if given:
        options = ",".join(f"{name}={_spelled(value)}" for name, value in given.items())
        lines.append(f"  {'':<11} options: {method.name}:{options}")
    if others:
        lines.append(f"  {'':<11} {'also' if given else 'options'}: {', '.join(others)}")
    if method.good_for:
        lines.append(f"  {'':<11} good for: {method.good_for}")
    if method.paper:
        lines.append(f"  {'':<11} source: {method.paper}")
    return lines


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
