"""The baseline: a small JSON, committed by the user, of the figures that models had.

Its figures are rounded and its keys sorted, so that a commit shows what changed and nothing else.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ptq.errors import ConfigError
from ptq.evaluate.thresholds import exceeds
from ptq.files import write_atomically
from ptq.report.check import BASELINE, Figure, Held, interval_text

#: Raised whenever a field changes its meaning or goes away.
SCHEMA = 1

#: How much worse than the baseline a figure may be: by the name of the figure, else by its unit.
#: Shares and decibels are absolute; all others are parts of the baseline's figure.
TOLERANCES: Mapping[str, float] = {
    "share": 0.005,  # half a point
    "dB": 0.5,  # an eighth more noise power: other CPUs and versions of onnxruntime differ by less
    "number": 0.1,  # of a mean squared error, that is about the half decibel above
    "cosine": 0.001,
    "size_bytes": 0.01,  # names and metadata of other exporter versions
    "integer_kernels": 0.0,  # a layer that fell back to float is what one wants to know
    "speedup": 0.15,  # what the same machine gives from day to day
}

#: Units and figures that `TOLERANCES` takes as absolute.
_ABSOLUTE = frozenset({"share", "dB"})

#: Decimal places of a figure in the file, by unit.
_PLACES = {"share": 4, "dB": 2, "factor": 2}

#: Significant digits of a plain number.
_DIGITS = 5


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures that one model had.

    Attributes:
        samples: how many feeds they are over.
        data_sha256: digest of these feeds, and of the labels.
        figures: by name; ``None`` is the SQNR of equal outputs.
        layers: SQNR in dB of each layer by itself, by its tensor, over the first few of the feeds;
            ``None`` if equal.
    """

    samples: int
    data_sha256: str
    figures: dict[str, float | None]
    layers: dict[str, float | None] = {}


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of several models.

    Attributes:
        models: by name.
        tolerances: how much worse a figure may be, by its name or unit; what is left out is as in
            `TOLERANCES`.
        schema: version of this format.
    """

    models: dict[str, Entry] = {}
    tolerances: dict[str, float] = {}
    schema: int = SCHEMA

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a baseline.

        Raises:
            ConfigError: there is none, it is damaged, or a newer `ptq` wrote it.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise ConfigError(
                f"there is no baseline '{path}'; --update-baseline writes one"
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot read the baseline '{path}': {error.strerror}") from error
        try:
            schema = msgspec.json.decode(content, type=_Versioned).schema
            if schema != SCHEMA:
                raise ConfigError(
                    f"the baseline '{path}' has schema {schema}, this ptq reads {SCHEMA}; use the "
                    "version that wrote it, or delete it and give --update-baseline"
                )
            found = msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"'{path}' is no baseline ({error}); restore it from version control, or delete it "
                "and give --update-baseline"
            ) from error
        found._require_tolerances(path)
        return found

    def _require_tolerances(self, path: Path) -> None:
        known = {*TOLERANCES, *(name for entry in self.models.values() for name in entry.figures)}
        for name, value in self.tolerances.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise ConfigError(
                    f"'{path}' has a tolerance for '{name}', which is no figure; {hint}choose one "
                    f"of: {', '.join(sorted(known))}"
                )
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"'{path}' has the tolerance {value:g} for '{name}'; give 0 or more"
                )

    def entry(self, name: str, path: Path) -> Entry:
        """Return the figures of a model.

        Args:
            name: the model.
            path: the file, for the error.

        Raises:
            ConfigError: it has none.
        """
        if name not in self.models:
            near = difflib.get_close_matches(name, self.models, n=1)
            hint = f"did you mean --name '{near[0]}'? " if near else ""
            raise ConfigError(
                f"the baseline '{path}' does not have '{name}'; {hint}--update-baseline adds it"
            )
        return self.models[name]

    def tolerance(self, figure: Figure, was: float) -> float:
        """Return how much worse than the baseline a figure may be, in its unit.

        A share that counts samples may always be worse by one of them, unless its tolerance is 0:
        a set of 40 images has no half points.
        """
        tolerances = {**TOLERANCES, **self.tolerances}
        names = (figure.name, figure.name.partition(":")[0], figure.unit)
        given = next(tolerances[name] for name in names if name in tolerances)
        if figure.unit not in _ABSOLUTE:
            return given * abs(was)
        return max(given, figure.step) if given else 0.0

    def to_json(self) -> bytes:
        """Return the file: sorted, one figure a line."""
        record = msgspec.to_builtins(self)
        return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


class _Versioned(msgspec.Struct):
    """What every version of the file has."""

    schema: int


def rounded(value: float | None, unit: str) -> float | None:
    """Return a figure as the file has it."""
    if value is None or not math.isfinite(value):
        return None
    if unit == "bytes":
        return round(value)
    if unit in _PLACES:
        # -0.0 and 0.0 would be a difference between two files
        return round(value, _PLACES[unit]) + 0.0
    return float(f"{value:.{_DIGITS}g}") + 0.0


def figures_of(figures: Sequence[Figure]) -> dict[str, float | None]:
    """Return figures as the file has them."""
    return {figure.name: rounded(figure.value, figure.unit) for figure in figures}


def rounded_layers(layers: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the errors of layers, in dB, as the file has them."""
    return {tensor: rounded(sqnr_db, "dB") for tensor, sqnr_db in layers.items()}


def require_same_data(entry: Entry, samples: int, data_sha256: str, name: str, path: Path) -> None:
    """Refuse to hold figures against those of other data.

    Raises:
        ConfigError: the data, the labels, or how many samples are used differ.
    """
    if entry.data_sha256 == data_sha256:
        return
    counted = (
        f"{entry.samples} samples, these are {samples}"
        if entry.samples != samples
        else "other data or labels"
    )
    raise ConfigError(
        f"'{name}' has figures of {counted} in the baseline '{path}'; give the same --data, "
        "--labels and --samples, or --update-baseline"
    )


def regressions(
    baseline: Baseline, entry: Entry, figures: Sequence[Figure]
) -> tuple[tuple[Held, ...], tuple[str, ...]]:
    """Hold figures against those of a baseline.

    The data is the same, so that sampling noise has no part in a difference; a speed-up alone is
    only worse if it is so beyond its spread.

    Returns:
        Every figure that the baseline has, and the names of those that are better than it by more
        than the tolerance.
    """
    held, improved = [], []
    for figure in figures:
        if figure.name in entry.figures:
            one, better = _against(baseline, entry.figures[figure.name], figure)
            held.append(one)
            if better:
                improved.append(figure.name)
    return tuple(held), tuple(improved)


def _against(baseline: Baseline, was: float | None, figure: Figure) -> tuple[Held, bool]:
    value = rounded(figure.value, figure.unit)
    # what is no number is the SQNR of equal outputs, which is better than any
    before, after = (math.inf if v is None else v for v in (was, value))
    sign = 1.0 if figure.higher_is_better else -1.0
    worse = 0.0 if before == after else sign * (before - after)
    tolerance = 0.0 if was is None else baseline.tolerance(figure, was)
    missed, certain, remark = exceeds(worse - tolerance, was or 0.0), True, ""
    if missed and figure.unit == "factor" and figure.hi is not None and figure.lo is not None:
        certain = exceeds(before - figure.hi - tolerance, before)
        if not certain:
            missed = False
            interval = interval_text(figure, figure.lo, figure.hi)
            remark = f"slower than in the baseline, but within the spread ({interval})"
    held = Held(
        figure=figure.name,
        option=BASELINE,
        measured=value,
        limit=None if was is None else was - sign * tolerance,
        verdict="missed" if missed else "holds",
        certain=certain,
        was=was,
        tolerance=tolerance,
        remark=remark,
    )
    return held, exceeds(-worse - tolerance, was or 0.0)


def update(path: Path, name: str, entry: Entry) -> None:
    """Write the figures of one model into a baseline, and keep those of all others.

    Several processes may do so at once, for `make -j`.

    Raises:
        ConfigError: the file is damaged, or its folder cannot be written to.
    """
    with _locked(path):
        found = Baseline.load(path) if path.exists() else Baseline(tolerances=dict(TOLERANCES))
        content = msgspec.structs.replace(found, models={**found.models, name: entry}).to_json()
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is a file beside it that goes when nobody needs it."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigError(f"cannot write '{lock}': {error.strerror}") from error
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_there(handle, lock):
            break
        os.close(handle)  # its last holder removed it while we waited
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
