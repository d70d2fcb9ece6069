"""Tables and figures for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

_MB = 1e6


def aligned(rows: Iterable[tuple[str, ...]], *, words: int = 1) -> list[str]:
    """Align columns: the first ``words`` and the last to the left, the others to the right."""
    table = [list(row) for row in rows]
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for *cells, last in table:
        padded = [
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths[:-1], strict=True))
        ]
        lines.append("  ".join([*padded, last]).rstrip())
    return lines


def megabytes(size_bytes: int) -> str:
    """Return a size for people."""
    return f"{size_bytes / _MB:.2f} MB" if size_bytes >= _MB / 10 else f"{size_bytes / 1e3:.1f} kB"
