"""What a model wants to be fed, the check that a feed is that, and the content hash of feeds.

Nothing is reshaped here, ever. The only conversions are of type, lose nothing the model could have
seen, and are told to ``notice``: float64 to float32, a narrower float to a wider one, and one
integer type to another that holds every value at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ptq.errors import DataError

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = dict[str, Array]
Dim: TypeAlias = int | str | None
#: Receives one-line notices about conversions; the same line may come many times.
Notice: TypeAlias = Callable[[str], None]

#: Arrays of these names are labels, unless the model has an input of that name.
LABEL_KEYS = ("labels", "label", "y")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: the input's name in the graph.
        dtype: the element type; ``object`` for strings.
        shape: one entry per axis, or ``None`` if even the rank is unknown. An int >= 0 is a fixed
            dimension; a name, ``None`` or a negative int (written by old exporters) is dynamic.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None

    @property
    def rank(self) -> int | None:
        """The number of axes, or ``None`` if unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def batch(self) -> int:
        """The size of the leading axis if the model fixes it, else 1."""
        return fixed_dim(self.shape[0]) or 1 if self.shape else 1


def fixed_dim(dim: Dim) -> int | None:
    """Return the dimension if it is fixed, ``None`` if it is dynamic."""
    return dim if isinstance(dim, int) and dim >= 0 else None


def format_shape(shape: Sequence[Dim] | None) -> str:
    """Return a shape as a user writes it: ``(N, 3, ?, 224)``."""
    if shape is None:
        return "(any shape)"
    dims = ["?" if dim is None or dim == "" or dim == -1 else str(dim) for dim in shape]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"


def check_feed(
    feed: Mapping[str, Array],
    inputs: Sequence[InputSpec],
    where: str,
    notice: Notice | None = None,
) -> Feed:
    """Return the feed in the order of the inputs, each array of exactly the type its input wants.

    Args:
        feed: one array per input.
        inputs: what the model wants.
        where: which feed this is, for errors: ``calib.npz sample 3``.
        notice: told once per array whose type had to be converted.

    Raises:
        DataError: an input is missing or unexpected, or its type, rank or a fixed dimension does
            not fit; the message gives both sides and the remedy.
    """
    check_names(feed, inputs, where)
    for spec in inputs:
        check_shape(feed[spec.name].shape, spec, where)
    return {spec.name: _as_dtype(feed[spec.name], spec, where, notice) for spec in inputs}


def check_names(given: Collection[str], inputs: Sequence[InputSpec], where: str) -> None:
    """Raise `DataError` unless there is an array for every input and no other."""
    wanted = [spec.name for spec in inputs]
    both = f"the data has: {_listed(given)}; the model wants: {_listed(wanted)}"
    missing = [name for name in wanted if name not in given]
    if missing:
        raise DataError(f"{where}: no array for input {_quoted(missing)}; {both}")
    unexpected = [name for name in given if name not in wanted]
    if unexpected:
        raise DataError(f"{where}: the model has no input {_quoted(unexpected)}; {both}")


def check_shape(shape: tuple[int, ...], spec: InputSpec, where: str) -> None:
    """Raise `DataError` unless the shape has the rank and the fixed dimensions of the input."""
    if spec.shape is None or _fits(shape, spec.shape):
        return
    raise DataError(
        f"{where}: input '{spec.name}' has shape {format_shape(shape)}, "
        f"the model wants {format_shape(spec.shape)}; {_shape_remedy(shape, spec.shape)}"
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values) or "nothing"


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _fits(shape: Sequence[int], wanted: Sequence[Dim]) -> bool:
    return len(shape) == len(wanted) and all(
        fixed_dim(want) in (None, have) for have, want in zip(shape, wanted, strict=True)
    )


def _shape_remedy(have: tuple[int, ...], want: tuple[Dim, ...]) -> str:
    """Name the mistake behind a wrong shape, where it is one of the usual ones."""
    if want and fixed_dim(want[0]) in (None, 1) and _fits(have, want[1:]):
        return "add a leading batch axis"
    if have and _fits(have[1:], want):
        return "drop the leading axis" if have[0] == 1 else "give each sample a feed of its own"
    if want and len(have) == len(want) and _fits(have[1:], want[1:]):
        return f"the model fixes its batch, so put {want[0]} in each feed"
    if len(have) == 4:
        batch, a, b, c = have
        if _fits((batch, c, a, b), want):
            return "the data is channels-last, so transpose it with x.transpose(0, 3, 1, 2)"
        if _fits((batch, b, c, a), want):
            return "the data is channels-first, so transpose it with x.transpose(0, 2, 3, 1)"
    return "prepare the data in the shape the model wants"


def _as_dtype(array: Array, spec: InputSpec, where: str, notice: Notice | None) -> Array:
    """Return the array in the input's type, or raise if a value would change."""
    want = spec.dtype
    have = array.dtype.newbyteorder("=")
    if _is_text(want) and _is_text(have):
        return array
    if have == want:
        return array.astype(want, copy=False)
    both = f"{where}: input '{spec.name}' is {have}, the model wants {want}"
    if have.kind in "iu" and want.kind in "iu":
        info = np.iinfo(want)
        for value in (array.min(), array.max()) if array.size else ():
            if not info.min <= int(value) <= info.max:
                raise DataError(f"{both}, which cannot hold {value}; check the preprocessing")
        cast = array.astype(want)
    elif have.kind == want.kind == "f" and (want == np.float32 or np.can_cast(have, want, "safe")):
        # Overflow is looked for below, where the message can name the input.
        with np.errstate(over="ignore"):
            cast = array.astype(want)
        if (np.isinf(cast) & np.isfinite(array)).any():
            raise DataError(f"{both}, which cannot hold a value so large; check the preprocessing")
    else:
        raise DataError(f"{both}; {_dtype_remedy(have, want)}")
    if notice is not None:
        notice(f"input '{spec.name}' is cast from {have} to {want}")
    return cast


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OU"


def _dtype_remedy(have: np.dtype[Any], want: np.dtype[Any]) -> str:
    if have.kind in "iu" and want.kind == "f":
        return "convert and scale it as the model was trained"
    return f"save it as {want}"


class Hasher(Protocol):
    """What `hash_feed` needs of a `hashlib` object."""

    def update(self, data: Any, /) -> None:  # noqa: ANN401 - any buffer, as hashlib has it
        """Add bytes."""


def hash_feed(hasher: Hasher, feed: Feed) -> None:
    """Add one feed: names, types, shapes and values of its arrays, whatever their order in it.

    Calling this on every feed of a pass gives what `Dataset.digest` gives, without a second pass.
    Each part is preceded by its length, so that two sequences of feeds hash alike only if they are
    alike. Values are hashed as little-endian bytes in C order, strings as JSON.
    """
    header = [(name, _dtype(feed[name]), feed[name].shape) for name in sorted(feed)]
    text = msgspec.json.encode(header)
    hasher.update(len(text).to_bytes(8, "little"))
    hasher.update(text)
    for name in sorted(feed):
        _hash_values(hasher, feed[name])


def _dtype(array: Array) -> str:
    return "str" if array.dtype.kind in "OU" else array.dtype.name


def _hash_values(hasher: Hasher, array: Array) -> None:
    if array.dtype.kind in "OU":
        # The width of a numpy string array depends on its neighbours; the strings do not.
        text = msgspec.json.encode(array.tolist())
        hasher.update(len(text).to_bytes(8, "little"))
        hasher.update(text)
        return
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # reshape first: a 0-d array cannot be viewed as bytes
    hasher.update(np.ascontiguousarray(little).reshape(-1).view(np.uint8))
