"""Made-up values, for trying things out without data: ``random``, or ``random:T=64,H=224``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import numpy as np

from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed, InputSpec, fixed_dim, format_shape
from ptq.errors import ConfigError

#: As many as published int8 recipes commonly calibrate with at least; random data has no end.
DEFAULT_SAMPLES = 32


class RandomDataset(Dataset):
    """Standard normal floats, and integers and bools that are 0 or 1; the same for the same seed.

    A dynamic leading axis is taken as a batch of 1, and so is any other axis of the same symbol.
    Other dynamic dimensions must be given after a colon, by symbol (``T=64``) or, where they have
    none, by input and axis (``input.2=64``).
    """

    kind = "random"
    form = "random (made-up values, for trials only)"
    synthetic = True

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the source is ``random``, with or without dimensions."""
        return source == "random" or source.startswith("random:")

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        self._seed = request.seed
        self._shapes = _shapes(self.inputs, request.source.partition(":")[2])
        for spec in self.inputs:
            _draw(np.random.default_rng(), spec, (0,))
        self._choose(request.samples or DEFAULT_SAMPLES, None)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            # a stream for each sample: the first ones stay the same when more are asked for
            rng = np.random.default_rng((self._seed, i))
            pairs = zip(self.inputs, self._shapes, strict=True)
            yield (
                f"random sample {i}",
                {spec.name: _draw(rng, spec, shape) for spec, shape in pairs},
            )


def _draw(rng: np.random.Generator, spec: InputSpec, shape: tuple[int, ...]) -> Array:
    # V is what ml_dtypes calls its kinds, such as bfloat16
    if spec.dtype.kind in "fV":
        return np.asarray(rng.standard_normal(shape, np.float32)).astype(spec.dtype)
    if spec.dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, shape)).astype(spec.dtype)
    raise ConfigError(
        f"there is no random data for input '{spec.name}' of type {spec.dtype}; supply real data"
    )


def _shapes(inputs: tuple[InputSpec, ...], text: str) -> list[tuple[int, ...]]:
    given = _given(text)
    batch = [_keys(spec, 0)[-1] for spec in inputs if spec.shape]
    known = dict.fromkeys(batch, 1) | given
    used: set[str] = set()
    shapes = [_shape(spec, known, used) for spec in inputs]
    unused = [name for name in given if name not in used]
    if unused:
        choices = [name for spec in inputs for name in _dynamic(spec)]
        near = difflib.get_close_matches(unused[0], choices, n=1)
        guess = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(
            f"random data: no input has a dynamic dimension '{unused[0]}'; {guess}"
            f"choose from: {', '.join(choices) or 'none'}"
        )
    return shapes


def _shape(spec: InputSpec, known: dict[str, int], used: set[str]) -> tuple[int, ...]:
    if spec.shape is None:
        raise ConfigError(f"input '{spec.name}' does not say its rank; supply real data")
    shape = []
    for axis, dim in enumerate(spec.shape):
        fixed = fixed_dim(dim)
        keys = _keys(spec, axis)
        key = next((key for key in keys if key in known), None)
        if fixed is not None:
            shape.append(fixed)
        elif key is not None:
            shape.append(known[key])
            used.add(key)
        else:
            raise ConfigError(
                f"random data: input '{spec.name}' wants {format_shape(spec.shape)}, and its axis "
                f"{axis} has no fixed size; give it with random:{keys[-1]}=64"
            )
    return tuple(shape)


def _keys(spec: InputSpec, axis: int) -> list[str]:
    """Return the ways to name a dimension, the more exact one first."""
    assert spec.shape is not None
    dim = spec.shape[axis]
    exact = f"{spec.name}.{axis}"
    # exporters write "?" for dimensions that have nothing to do with one another
    return [exact, dim] if isinstance(dim, str) and dim not in ("", "?") else [exact]


def _dynamic(spec: InputSpec) -> list[str]:
    axes = [a for a, dim in enumerate(spec.shape or ()) if fixed_dim(dim) is None]
    return [_keys(spec, axis)[-1] for axis in axes]


def _given(text: str) -> dict[str, int]:
    given = {}
    for part in text.split(",") if text else []:
        name, _, size = part.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise ConfigError(f"random data: '{part}' is not NAME=SIZE; write random:T=64,H=224")
        given[name] = int(size)
    return given
