"""Reading the right class or text of each sample, and keeping those of the samples in use."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, overload

import msgspec
import numpy as np
import numpy.typing as npt

from ptq.data.containers import ArrayContainer
from ptq.data.dataset import Dataset
from ptq.data.feeds import LABEL_KEYS
from ptq.errors import DataError

_SUFFIXES = (".npy", ".npz", ".json", ".csv", ".txt")


#: The right classes of all rows, or the right texts of all lines.
Labels: TypeAlias = npt.NDArray[np.int64] | tuple[str, ...]

#: What labels are; ``any`` asks the file, where texts that are all numbers are classes.
Kind: TypeAlias = Literal["classes", "texts", "any"]

_L = TypeVar("_L", npt.NDArray[np.int64], tuple[str, ...], Labels)

_WANTED = {"classes": "integer", "texts": "text", "any": "integer or text"}


@overload
def read_labels(path: str | Path, kind: Literal["classes"] = ...) -> npt.NDArray[np.int64]: ...
@overload
def read_labels(path: str | Path, kind: Literal["texts"]) -> tuple[str, ...]: ...
@overload
def read_labels(path: str | Path, kind: Kind) -> Labels: ...
def read_labels(path: str | Path, kind: Kind = "classes") -> Labels:
    """Return the labels in a file, one for each sample.

    The file is an ``.npy`` of one axis, an ``.npz`` with such an array named labels, label or y,
    a ``.json`` list, or a ``.csv`` or ``.txt`` with one label on a line; classes may be under a
    first line ``label``, and so may texts in a ``.csv``.

    Args:
        path: the file.
        kind: what its labels are.

    Returns:
        Classes as int64 of shape ``(samples,)``, texts as a tuple.

    Raises:
        DataError: the file cannot be read, or holds anything but a list of such labels.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    labels: Labels
    try:
        if suffix in (".npy", ".npz"):
            labels = _from_numpy(path, kind)
        elif suffix == ".json":
            labels = _from_json(path, kind)
        elif suffix in (".csv", ".txt"):
            labels = _from_lines(path, kind)
        else:
            raise DataError(
                f"cannot read labels from '{path}'; give one of: {', '.join(_SUFFIXES)}"
            )
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read labels from '{path}': {reason}; check the path") from error
    if len(labels) == 0:
        raise DataError(f"{path}: holds no labels; give one {_WANTED[kind]} for each sample")
    return labels


def select_labels(labels: _L, dataset: Dataset) -> _L:
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
    if isinstance(labels, tuple):
        return tuple(labels[i] for i in used.ravel())
    return labels[used.ravel()]


def _from_numpy(path: Path, kind: Kind) -> Labels:
    with ArrayContainer(path) as container:
        have = list(container)
        keys = [key for key in LABEL_KEYS if key in have] if path.suffix.lower() == ".npz" else have
        if not keys:
            listed = ", ".join(have) or "nothing"
            raise DataError(f"{path}: has {listed}; name the labels 'labels', 'label' or 'y'")
        array = container.open(keys[0]).whole()
    if array.ndim == 1 and array.dtype.kind in "iu" and kind != "texts":
        return array.astype(np.int64)
    if array.ndim == 1 and array.dtype.kind == "U" and kind != "classes":
        return tuple(array.tolist())
    raise DataError(
        f"{path}: labels are {array.dtype} of shape {array.shape}; "
        f"give {_WANTED[kind].replace(' ', 's ')}s of shape (samples,)"
    )


def _from_json(path: Path, kind: Kind) -> Labels:
    content = path.read_bytes()
    if kind != "classes":
        try:
            return tuple(msgspec.json.decode(content, type=list[str]))
        except msgspec.MsgspecError as error:
            if kind == "texts":
                raise DataError(
                    f'{path}: not a JSON list of texts ({error}); give ["one", "two"]'
                ) from error
    try:
        values = msgspec.json.decode(content, type=list[int])
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: not a JSON list of integers ({error}); give [3, 1, 4]") from error
    return _int64(values, path)


def _from_lines(path: Path, kind: Kind) -> Labels:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8; give one {_WANTED[kind]} on each line"
        ) from error
    if kind == "classes":
        return _classes(text, path)
    if kind == "any":
        try:
            return _classes(text, path)
        except DataError:
            pass  # then they are texts
    return _texts(text, path)


def _classes(text: str, path: Path) -> npt.NDArray[np.int64]:
    lines = text.strip().splitlines()
    header = bool(lines) and lines[0].strip().lower() in LABEL_KEYS
    values = []
    for number, line in enumerate(lines[header:], start=1 + header):
        try:
            values.append(int(line))
        except ValueError as error:
            raise DataError(
                f"{path} line {number}: '{line.strip()}' is not an integer; "
                "give one integer on each line (texts are for ptq check --metric cer)"
            ) from error
    return _int64(values, path)


def _texts(text: str, path: Path) -> tuple[str, ...]:
    """Return the lines, empty ones too; of a ``.csv``, the only column."""
    # not splitlines(), which takes some characters for ends of lines
    lines = text.removesuffix("\n").split("\n") if text else []
    if path.suffix.lower() != ".csv":
        return tuple(line.removesuffix("\r") for line in lines)
    rows = list(csv.reader(f"{line}\n" for line in lines))
    for number, row in enumerate(rows, start=1):
        if len(row) > 1:
            raise DataError(
                f"{path} row {number}: has {len(row)} columns; give one text on each line, in "
                "quotes if it holds a comma"
            )
    texts = [row[0] if row else "" for row in rows]
    return tuple(texts[bool(texts) and texts[0].lower() in LABEL_KEYS :])


def _int64(values: list[int], path: Path) -> npt.NDArray[np.int64]:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: a label does not fit 64 bits; give class numbers") from error
