"""TOML as text, a line for each key: the standard library reads it, and does not write it."""

from __future__ import annotations

from collections.abc import Mapping

import tomlkit
from tomlkit.items import Item

#: Comments are aligned behind values, unless these are longer.
_WIDEST = 60


def toml_value(value: object) -> str:
    """Return a string, number, bool, list or table as it stands behind ``=``, on one line.

    Raises:
        ValueError: the value is of another type; TOML has no null.
    """
    return _item(value).as_string()


def toml_lines(table: Mapping[str, object], notes: Mapping[str, str] | None = None) -> list[str]:
    """Return a table line by line, in the order given.

    Args:
        table: the values by key.
        notes: comments to the values of some keys.
    """
    notes = notes or {}
    lines = {key: f"{_key(key)} = {toml_value(value)}" for key, value in table.items()}
    width = max((len(line) for key, line in lines.items() if key in notes), default=0)
    width = min(width, _WIDEST)
    return [
        f"{line:{width}}  # {_comment(notes[key])}" if key in notes else line
        for key, line in lines.items()
    ]


def _item(value: object) -> Item:
    """Return a value as an item without line breaks, which tables and their lists have."""
    match value:
        case Mapping():
            table = tomlkit.inline_table()
            for key, inner in value.items():
                table.append(key, _item(inner))
            return table
        case list() | tuple():
            array = tomlkit.array()
            for inner in value:
                array.append(_item(inner))
            return array
        case _:
            return tomlkit.item(value)


def _key(key: str) -> str:
    """Return a key, in quotes where it needs them."""
    return tomlkit.key(key).as_string()


def _comment(text: str) -> str:
    """Return a text as a comment may have it: control characters end it, or are no TOML."""
    return "".join(c if c.isprintable() else "?" for c in text)
