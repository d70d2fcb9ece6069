"""The methods there are, from their registries: what `ptq methods` lists."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import msgspec

from ptq.config import FULL_BITS
from ptq.errors import ConfigError
from ptq.report.literature import System, system_text


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
        widths: the bits of a weight that it has, ascending; empty of what has no widths.
    """

    name: str
    kind: str
    title: str
    paper: str
    good_for: str
    options: dict[str, object]
    widths: tuple[int, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """What there is of one name.

    Attributes:
        methods: of any kind.
        systems: of the literature: of that name, or made by such a method.
    """

    methods: tuple[Method, ...]
    systems: tuple[System, ...]


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
            widths=_widths_of(method),
        )
        for name, method in sorted(found.items())
    ]


def named(name: str, methods: Sequence[Method], systems: Sequence[System]) -> Found:
    """Return the methods of a name, and the systems of that name or made by such a method.

    Names are the same whatever their case, and whatever stands between letters.

    Raises:
        ConfigError: there is nothing of that name.
    """
    key = _key(name)
    of_name = tuple(method for method in methods if _key(method.name) == key)
    own = [system for system in systems if key and key in _words(system.name)]
    made = [s for s in systems if s not in own and any(s.mentions(m.name) for m in of_name)]
    if not of_name and not own:
        names = [method.name for method in methods] + [system.name for system in systems]
        known = {_key(name): name for name in names}
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean '{known[near[0]]}'? " if near else ""
        raise ConfigError(
            f"there is no method or system '{name}'; {hint}`ptq methods` and `ptq methods "
            "--systems` list them"
        )
    return Found(of_name, (*own, *made))


def _key(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum() or c == "+")


def _words(name: str) -> set[str]:
    """Return the whole name and its parts, as keys."""
    return {_key(name), *map(_key, name.split())}


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
    lines.append("`ptq methods --systems` lists the systems of the literature and what makes them,")
    lines.append("`ptq methods NAME` what there is of one name")
    return "\n".join(lines)


def found_text(found: Found) -> str:
    """Return what `ptq methods NAME` prints."""
    parts = ["\n".join([_KINDS[method.kind], *_described(method)]) for method in found.methods] + [
        system_text(system) for system in found.systems
    ]
    return "\n\n".join(parts)


def _described(method: Method) -> list[str]:
    lines = [f"  {method.name:<11} {method.title}"]
    given = {name: value for name, value in method.options.items() if value not in ("", None)}
    others = [name for name in method.options if name not in given]
    if given:
        options = ",".join(f"{name}={_spelled(value)}" for name, value in given.items())
        lines.append(f"  {'':<11} options: {method.name}:{options}")
    if others:
        lines.append(f"  {'':<11} {'also' if given else 'options'}: {', '.join(others)}")
    if method.widths:
        lines.append(f"  {'':<11} widths: {widths_text(method.widths)}")
    if method.good_for:
        lines.append(f"  {'':<11} good for: {method.good_for}")
    if method.paper:
        lines.append(f"  {'':<11} source: {method.paper}")
    return lines


def _widths_of(method: type[msgspec.Struct]) -> tuple[int, ...]:
    """Return the widths that a class names, one by one or from the least to the most."""
    if hasattr(method, "most_bits"):
        most = min(method.most_bits, FULL_BITS)  # --bits takes no more
        return tuple(range(method.least_bits, most + 1))  # type: ignore[attr-defined]
    return tuple(sorted(getattr(method, "widths", ())))


def widths_text(widths: Sequence[int]) -> str:
    """Return widths in words: ``1 bit``, ``2 to 6 and 8 bits``."""
    runs: list[list[int]] = []
    for width in widths:
        if runs and width == runs[-1][-1] + 1:
            runs[-1].append(width)
        else:
            runs.append([width])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{listed} bit{'' if list(widths) == [1] else 's'}"


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
