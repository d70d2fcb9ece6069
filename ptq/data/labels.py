"""Reading the right class of each sample, and keeping only those of the samples in use."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ptq.data.containers import ArrayContainer
from ptq.data.dataset import Dataset
from ptq.data.feeds import LABEL_KEYS
from ptq.errors import DataError

_SUFFIXES = (".npy", ".npz", ".json", ".csv", ".txt")


def read_labels(path: str | Path) -> npt.NDArray[np.int64]:
    """Return the integer labels in a file, one for each sample, int64 of shape ``(samples,)``.

    The file is an ``.npy`` of one axis, an ``.npz`` with such an array named labels, label or y,
    a ``.json`` list, or a ``.csv`` or ``.txt`` with one number on a line (under a first line
    ``label``, if any).

    Raises:
        DataError: the file cannot be read, or holds anything but a list of integers.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix in (".npy", ".npz"):
            labels = _from_numpy(path)
        elif suffix == ".json":
            labels = _from_json(path)
        elif suffix in (".csv", ".txt"):
            labels = _from_lines(path)
        else:
            raise DataError(
                f"cannot read labels from '{path}'; give one of: {', '.join(_SUFFIXES)}"
            )
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read labels from '{path}': {reason}; check the path") from error
    if labels.size == 0:
        raise DataError(f"{path}: holds no labels; give one integer for each sample")
    return labels


def select_labels(labels: npt.NDArray[np.int64], dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the labels of the samples the data set uses, in its order.

    Labels of a source that can only be read from its start, or that is used whole, stay as they
    are: their number is checked against the model's outputs when these are known.

    Raises:
        DataError: some samples are left out, and the labels do not match the samples one to one.
    """
    positions, rows = dataset.positions, dataset.rows
    if positions is None or dataset.available is None or dataset.synthetic:
        return labels
    whole = len(positions) == dataset.available
    if whole and (rows == 1 or len(labels) == dataset.available * rows):
        return labels
    if len(labels) // rows != dataset.available:
        raise DataError(
            f"there are {len(labels)} labels, and {dataset.source} has "
            f"{dataset.available * rows} rows; give one label for each, or use all samples"
        )
    used = np.asarray(positions)[:, np.newaxis] * rows + np.arange(rows)
    return labels[used.ravel()]


def _from_numpy(path: Path) -> npt.NDArray[np.int64]:
    with ArrayContainer(path) as container:
        have = list(container)
        keys = [key for key in LABEL_KEYS if key in have] if path.suffix.lower() == ".npz" else have
        if not keys:
            listed = ", ".join(have) or "nothing"
            raise DataError(f"{path}: has {listed}; name the labels 'labels', 'label' or 'y'")
        array = container.open(keys[0]).whole()
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels are {array.dtype} of shape {array.shape}; "
            "give integers of shape (samples,)"
        )
    return array.astype(np.int64)


def _from_json(path: Path) -> npt.NDArray[np.int64]:
    try:
        values = msgspec.json.decode(path.read_bytes(), type=list[int])
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: not a JSON list of integers ({error}); give [3, 1, 4]") from error
    return _int64(values, path)


def _from_lines(path: Path) -> npt.NDArray[np.int64]:
    try:
        lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file; give one integer on each line") from error
    header = bool(lines) and lines[0].strip().lower() in LABEL_KEYS
    values = []
    for number, line in enumerate(lines[header:], start=1 + header):
        try:
            values.append(int(line))
        except ValueError as error:
            raise DataError(
                f"{path} line {number}: '{line.strip()}' is not an integer; "
                "give one integer on each line"
            ) from error
    return _int64(values, path)


def _int64(values: list[int], path: Path) -> npt.NDArray[np.int64]:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: a label does not fit 64 bits; give class numbers") from error
