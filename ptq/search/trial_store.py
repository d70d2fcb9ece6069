"""Results of dear trials, one file each, named by a digest of all that they depend on.

A run that was interrupted finds what it had measured, and so does one with other limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from ptq.errors import ConfigError
from ptq.files import write_atomically

#: Raised whenever a result of an earlier version would be misread.
_SCHEMA = 1

T = TypeVar("T")


class TrialStore:
    """A folder of results."""

    def __init__(self, folder: Path | None) -> None:
        """Remember where it is.

        Args:
            folder: made when the first result is kept; ``None`` keeps nothing.
        """
        self.folder = folder

    def key(self, what: Sequence[object]) -> str:
        """Return the digest of plain values, the same on every run."""
        content = msgspec.json.encode([_SCHEMA, *what], order="sorted")
        return hashlib.sha256(content).hexdigest()[:32]

    def get(self, key: str, kind: type[T]) -> T | None:
        """Return a result; ``None`` if it is not there, or of another version."""
        if self.folder is None:
            return None
        try:
            return msgspec.json.decode(self._path(key).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError, ConfigError):
            return None  # it is measured again

    def put(self, key: str, result: object) -> None:
        """Keep a result, whole or not at all.

        Raises:
            ConfigError: the folder cannot be written to: a run that could not go on must say so.
        """
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot keep trials in '{self.folder}': {error.strerror}; give another --state"
            ) from error
        write_atomically(self._path(key), msgspec.json.encode(result))

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.json"
