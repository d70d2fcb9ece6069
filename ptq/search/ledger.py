"""Results of trials, kept in a file line by line, so that an interrupted run can go on."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import msgspec

from ptq.errors import ConfigError
from ptq.search.trials import Damage

#: Raised whenever a line of an earlier version would be misread.
SCHEMA = 1

#: How a file begins.
_BEGINNING = b'{"key":"'


class _Heading(msgspec.Struct, frozen=True):
    """The first line: what the others were measured with."""

    key: str
    schema: int = SCHEMA


class _Line(msgspec.Struct, frozen=True):
    """One trial."""

    trial: str
    damage: Damage


class Ledger:
    """The results of one search, by trial; used as a context, it keeps them in a file.

    Attributes:
        known: how many results were there already.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        """Read what is there.

        Args:
            path: the file; ``None`` keeps nothing.
            key: digest of everything that results depend on.

        Raises:
            ConfigError: the file is of another search, or none of ours.
        """
        self._path = path
        self._key = key
        self._stream: BinaryIO | None = None
        self._found, self._whole = _read(path, key) if path is not None else ({}, 0)
        self.known = len(self._found)

    def __enter__(self) -> Ledger:
        """Open the file for more."""
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("ab")
            # the last line of a run that was killed may be half a line
            self._stream.truncate(self._whole)
        except OSError as error:
            raise ConfigError(f"cannot write '{self._path}': {error.strerror}") from error
        if not self._whole:
            self._write(_Heading(self._key))
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; what was measured stays, whatever went wrong."""
        if self._stream is not None:
            self._stream.close()

    def get(self, trial: str) -> Damage | None:
        """Return a result, if it is known."""
        return self._found.get(trial)

    def __getitem__(self, trial: str) -> Damage:
        """Return a result that is known."""
        return self._found[trial]

    def add(self, trial: str, damage: Damage) -> None:
        """Keep a result."""
        self._found[trial] = damage
        self._write(_Line(trial, damage))

    def _write(self, line: msgspec.Struct) -> None:
        if self._stream is not None:
            self._stream.write(msgspec.json.encode(line) + b"\n")
            self._stream.flush()


def _read(path: Path, key: str) -> tuple[dict[str, Damage], int]:
    """Return the results in a file, and up to where its lines are whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}") from error
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        if not content.startswith(_BEGINNING[: len(content)]):
            raise ConfigError(f"'{path}' holds no results of trials; give another --state")
        return {}, 0
    first, *rest = whole.splitlines()
    try:
        heading = msgspec.json.decode(first, type=_Heading)
        lines = [msgspec.json.decode(line, type=_Line) for line in rest]
    except msgspec.DecodeError as error:
        raise ConfigError(f"'{path}' holds no results of trials; give another --state") from error
    if (heading.key, heading.schema) != (key, SCHEMA):
        raise ConfigError(
            f"'{path}' holds results with another model, other data or other settings; remove it, "
            "or give another --state"
        )
    return {line.trial: line.damage for line in lines}, len(whole)
