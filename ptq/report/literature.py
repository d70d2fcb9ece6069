"""The systems of the literature: what each becomes here, or why it is out of scope."""

from __future__ import annotations

import shlex
from functools import cache
from importlib.resources import files

import msgspec


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A system or an idea that has a name in the literature.

    Attributes:
        name: what it is called there.
        paper: authors, title, venue and year.
        use: what makes it, options of `ptq quantize` or whole commands; empty if it is out of
            scope.
        widths: of what it quantizes.
        good_for: when to take it.
        out_of_scope: why it is not here, in one sentence; empty if it is.
        note: what differs from the paper, or is often got wrong.
    """

    name: str
    paper: str
    use: tuple[str, ...] = ()
    widths: str = ""
    good_for: str = ""
    out_of_scope: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse an entry that neither says what to do nor why there is nothing."""
        here = bool(self.use and self.widths and self.good_for)
        if here == bool(self.out_of_scope) or (self.out_of_scope and self.use):
            raise ValueError(f"'{self.name}' needs use, widths and good_for, or out_of_scope")

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type, from the name of the command on."""
        return tuple(u if u.startswith("ptq ") else f"ptq quantize MODEL {u}" for u in self.use)

    def mentions(self, method: str) -> bool:
        """Return whether a method, by its name, is what some of its options take."""
        words = [word for use in self.use for word in shlex.split(use)]
        return any(word.partition(":")[0] == method for word in words if not word.startswith("-"))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """What the file of systems holds."""

    system: tuple[System, ...]


@cache
def systems() -> tuple[System, ...]:
    """Return all systems, in the order of the file."""
    content = (files("ptq.report") / "literature.toml").read_bytes()
    return msgspec.toml.decode(content, type=_File).system


def systems_text(found: tuple[System, ...]) -> str:
    """Return what `ptq methods --systems` prints: a line or two for each, then what is left out."""
    here = [system for system in found if system.use]
    lines = ["systems of the literature, and what makes them (options of `ptq quantize`)"]
    for system in here:
        lines.append(f"  {system.name}")
        lines += [f"      {use}" for use in system.use]
    lines += ["", "out of scope"]
    for system in found:
        if system.out_of_scope:
            lines.append(f"  {system.name}: {system.out_of_scope}")
    lines += ["", "`ptq methods NAME` shows one with its source and what it is good for"]
    return "\n".join(lines)


def system_text(system: System) -> str:
    """Return one system whole."""
    lines = [system.name]
    lines += [f"  use: {command}" for command in system.commands]
    named = {
        "widths": system.widths,
        "good for": system.good_for,
        "out of scope": system.out_of_scope,
        "note": system.note,
        "source": system.paper,
    }
    return "\n".join([*lines, *(f"  {name}: {text}" for name, text in named.items() if text)])
