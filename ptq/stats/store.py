"""Statistics as a file: one .npz without pickle, the same bytes for the same statistics."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptq.errors import CalibrationError
from ptq.files import write_atomically
from ptq.numerics.arrays import AnyArray
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax

#: Raised when the content changes meaning; other versions are refused.
_FORMAT = 1
#: The smallest time a zip archive can hold; without it the bytes would depend on the clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_stats(path: Path, header: Mapping[str, Any], tensors: Mapping[str, TensorStats]) -> None:
    """Write statistics to a file, which appears complete or not at all.

    Args:
        path: the file; it is replaced.
        header: what `load_stats` is to give back, JSON.
        tensors: statistics by tensor name; their order is kept.

    Raises:
        ConfigError: the folder cannot be written to.
        CalibrationError: the file cannot be written.
    """
    try:
        write_atomically(path, _packed(header, tensors))
    except OSError as error:
        raise CalibrationError(f"cannot write '{path}': {error.strerror}") from error


def load_stats(path: Path) -> tuple[dict[str, Any], dict[str, TensorStats]]:
    """Return the header and the statistics by tensor name.

    Raises:
        CalibrationError: there is no such file, or it does not hold statistics.
    """
    try:
        return _unpacked(_members(path))
    except OSError as error:
        raise CalibrationError(
            f"cannot read '{path}': {error.strerror or error}; write it with 'ptq calibrate'"
        ) from error
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise CalibrationError(
            f"'{path}' does not hold statistics of this version of ptq; write it again with "
            "'ptq calibrate'"
        ) from error


def _packed(header: Mapping[str, Any], tensors: Mapping[str, TensorStats]) -> bytes:
    """Return the archive: columns over the tensors, and all bins behind one another."""
    about = {"format": _FORMAT, "header": header, "tensors": list(tensors)}
    text = json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    members: dict[str, AnyArray] = {"header": np.frombuffer(text.encode(), np.uint8)}
    for stat in ("minmax", "ema", "hist"):
        columns = [getattr(stats, stat).arrays() for stats in tensors.values()]
        for key in columns[0] if columns else ():
            parts = [arrays[key] for arrays in columns]
            members[f"{stat}.{key}"] = np.concatenate(parts)
            members[f"{stat}.{key}.size"] = np.array([part.size for part in parts])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _members(path: Path) -> dict[str, AnyArray]:
    # np.load would do, but leaves a damaged file open.
    with zipfile.ZipFile(path) as archive:
        members = {}
        for name in archive.namelist():
            with archive.open(name) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                members[name.removesuffix(".npy")] = array
        return members


def _unpacked(
    members: Mapping[str, AnyArray],
) -> tuple[dict[str, Any], dict[str, TensorStats]]:
    about = json.loads(members["header"].tobytes())
    if about["format"] != _FORMAT:
        raise ValueError(f"format {about['format']}")
    names: list[str] = about["tensors"]
    rows: list[dict[str, dict[str, AnyArray]]] = [
        {"minmax": {}, "ema": {}, "hist": {}} for _ in names
    ]
    for member, array in members.items():
        stat, _, key = member.partition(".")
        if member == "header" or key.endswith(".size"):
            continue
        ends = np.cumsum(members[f"{member}.size"])
        parts = np.split(array, ends[:-1])
        if ends[-1] != array.size:
            raise ValueError(f"{member} is cut short")
        for row, part in zip(rows, parts, strict=True):
            row[stat][key] = part
    tensors = {}
    for name, row in zip(names, rows, strict=True):
        tensors[name] = TensorStats(
            MinMax.from_arrays(row["minmax"]),
            EmaMinMax.from_arrays(row["ema"]),
            Histogram.from_arrays(row["hist"]),
        )
        _check(tensors[name])
    return dict(about["header"]), tensors


def _check(stats: TensorStats) -> None:
    """Refuse what no data can give, before a solver trusts it."""
    minmax, ema, hist = stats.minmax, stats.ema, stats.hist
    ends = np.array([minmax.lo, minmax.hi] if minmax.count else [0.0, 0.0])
    averages = np.array([ema.lo, ema.hi, ema.first_lo, ema.first_hi])
    sound = (
        np.all(np.isfinite(ends))
        and ends[0] <= ends[1]
        and np.all(np.isfinite(averages))
        and 0 <= ema.decay <= 1
        and hist.counts.dtype == np.int64
        and np.all(hist.counts >= 0)
        and (not hist.counts.size or (hist.counts[0] > 0 and hist.counts[-1] > 0))
        and hist.zeros >= 0
    )
    if not sound:
        raise ValueError("no data has such statistics")
