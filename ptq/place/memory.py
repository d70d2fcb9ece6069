"""Placements that were measured before, kept on disk: the same run gives the same file again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptq.errors import ConfigError
from ptq.files import write_atomically
from ptq.graph.variants import Variant
from ptq.report.placement import Candidate, Placement

#: Where placements are kept, in place of the user's cache folder; empty to keep none.
VARIABLE = "PTQ_CACHE"


#: Raised whenever a choice of an earlier version would be misread.
_SCHEMA = 3


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A placement that was measured.

    Attributes:
        candidates: what was timed.
        chosen: the name of the fastest that has integer operators.
        float_is_faster: whether a float model is faster than that.
        prepared_is_faster: whether the prepared float model is faster than the user's file.
        keep_float: the nodes that stay in float in it, with the reason.
        variants: the nodes that are written in another form in it.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    float_is_faster: bool = False
    prepared_is_faster: bool = False
    keep_float: dict[str, str]
    variants: dict[str, Variant] = {}


@dataclass(frozen=True, slots=True)
class Memory:
    """The place of one choice on disk.

    Attributes:
        path: the file; ``None`` if nothing is to be kept.
    """

    path: Path | None

    @classmethod
    def of(cls, host: str, what: Sequence[object]) -> Memory:
        """Return the place of the choice for these settings.

        Args:
            host: the CPU and the runtime that times hold for.
            what: everything else that the choice depends on, as plain values.
        """
        folder = cache_folder()
        if folder is None:
            return cls(None)
        keyed = msgspec.json.encode([_SCHEMA, host, *what], order="sorted")
        key = hashlib.sha256(keyed).hexdigest()
        return cls(folder / "placements" / f"{key[:32]}.json")

    def read(self) -> Choice | None:
        """Return the choice, if it is there and whole."""
        if self.path is None:
            return None
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Choice)
        except (OSError, msgspec.DecodeError):
            return None  # not there, or of another version: it is measured again

    def write(self, choice: Choice) -> None:
        """Keep the choice; a folder that cannot be written to only costs the next run its time."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, msgspec.json.encode(choice))
        except (OSError, ConfigError):
            return


def recall(memory: Memory, measure: Callable[[], Choice]) -> tuple[Choice, Placement]:
    """Return the choice of an earlier run, or measure one and keep it; and the report on it."""
    began = time.perf_counter()
    known = memory.read()
    choice = known or measure()
    if known is None:
        memory.write(choice)
    return choice, Placement(
        mode="auto",
        candidates=choice.candidates,
        chosen=choice.chosen,
        seconds=time.perf_counter() - began,
        cached=known is not None,
        variants=dict(choice.variants),
    )


def cache_folder() -> Path | None:
    """Return where results are remembered; ``None`` if nothing is to be kept."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptq"
