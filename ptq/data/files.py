"""Listing the files of a directory in an order that does not depend on the file system."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ptq.data.feeds import LABEL_KEYS


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Return a sort key that puts ``2.npz`` before ``10.npz``; the name itself breaks ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    key = [(False, int(p), "") if "0" <= p[0] <= "9" else (True, 0, p) for p in parts]
    return key, name


def data_files(directory: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files in the directory with one of the suffixes, in natural order of name.

    Hidden files are left out, and so are files named like labels (``labels.npy``). What is not a
    directory gives no files.
    """
    if not directory.is_dir():
        return []
    found = [
        child
        for child in directory.iterdir()
        if child.suffix.lower() in suffixes
        and child.stem.lower() not in LABEL_KEYS
        and not child.name.startswith(".")
        and child.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def subdirectories(directory: Path) -> list[Path]:
    """Return the visible directories in a directory, in natural order of name."""
    if not directory.is_dir():
        return []
    found = [c for c in directory.iterdir() if c.is_dir() and not c.name.startswith(".")]
    return sorted(found, key=lambda path: natural_key(path.name))
