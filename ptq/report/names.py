"""Names from models, which may hold anything, made fit to be shown."""

from __future__ import annotations

#: Longest name that is shown whole; converters name tensors after whole call stacks.
LONGEST = 96


def visible(text: str) -> str:
    r"""Return text on one line, with what cannot be seen, or turns text around, written as codes.

    A line break becomes ``\n``, and a right-to-left override ``\u202e``.
    """
    return "".join(c if c.isprintable() else _code(c) for c in text)


#: Those that have a code everybody knows, in TOML and JSON too.
_KNOWN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _code(character: str) -> str:
    number = ord(character)
    return _KNOWN.get(character) or (f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}")


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return visible text without its middle if it is longer than so many characters."""
    text = visible(text)
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
