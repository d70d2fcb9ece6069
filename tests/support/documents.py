"""The Markdown files of the repository, and what is in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

#: Markdown that is part of the repository; `build` and the like hold other people's.
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for d in ("docs", "benchmarks", "examples", "tests", "scripts",
                                       "calibration_data") for p in (ROOT / d).rglob("*.md"))]
)  # fmt: skip

#: In shell, what ends a command; what begins a remark.
_ENDS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>"})

_BLOCK = re.compile(r"^```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", re.M | re.S)
_PATH = re.compile(r"# (?P<path>\S+\.\w+)\n")


class Block(NamedTuple):
    """A fenced block: its language, and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["language"], m["text"]) for m in found]


def files(page: Path) -> dict[str, str]:
    """Return the blocks whose first line is a comment with a path, by that path."""
    named = ((_PATH.match(block.text), block.text) for block in blocks(page))
    return {match["path"]: text for match, text in named if match}


def commands(page: Path) -> list[list[str]]:
    """Return the words of every `ptq` command of the fenced blocks, without its name."""
    found = []
    for block in blocks(page):
        if block.language not in ("", "sh", "make", "yaml", "bash", "console"):
            continue
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            match = re.match(r"[\s$@-]*(?:run: *)?(ptq\s.*)", line)
            if match:
                found += _ptq_commands(match[1])
    return found


def _ptq_commands(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found: list[list[str]] = []
    begins = True
    for word in lexer:
        if begins and word == "ptq":
            found.append([])
        elif word in _ENDS:
            begins = True
            continue
        elif found and not begins:
            found[-1].append(word)
        begins = False
    return [words for words in found if words]


def inline_commands(page: Path) -> list[list[str]]:
    """Return the words of every `ptq` command in backquotes; they may be fragments."""
    spans = re.findall(r"`(ptq\s[^`]+)`", prose(page))
    return [span.replace("\\|", "|").split()[1:] for span in spans]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))
