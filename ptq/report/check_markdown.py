"""A check as Markdown, for a comment on a pull request or the summary of a CI job."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from ptq.report.check import Check
from ptq.report.check_text import check_notes, check_rows, fault_groups

#: What Markdown gives a meaning to inside a line; `&` and `<` are HTML's.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~!])")


def check_markdown(found: Check) -> str:
    """Return a verdict line and a small table."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Check) -> Iterator[str]:
    yield f"**ptq check {'passed' if found.passed else 'failed'}**: {escaped(found.verdict)}"
    yield ""
    head, *rows = check_rows(found)
    yield _row(head)
    yield _row([":---", *["---:"] * (len(head) - 2), ":---"])
    for *cells, verdict in rows:
        line = [escaped(cell) for cell in cells]
        yield _row([*line, f"**{verdict}**" if verdict == "missed" else verdict])
    notes = [*check_notes(found)]
    if notes:
        yield ""
        yield from (f"- {escaped(note)}" for note in notes)
    for title, faults in fault_groups(found):
        yield from ("", f"{title.capitalize()}:", "")
        yield _row(["layer", "operator", "why"])
        yield _row([":---"] * 3)
        yield from (_row([escaped(f.name), escaped(f.op_type), escaped(f.why)]) for f in faults)
    if found.advice:
        yield from ("", escaped(f"Next: {found.advice}"))
    if found.next_commands:
        yield from ("", "To see more:", "", *(f"    {_line(c)}" for c in found.next_commands))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(_line(text), quote=False))


def _line(text: str) -> str:
    """Keep a name with line breaks or control characters from ending its line."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
