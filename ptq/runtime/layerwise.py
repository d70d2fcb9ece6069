"""Run a float and a quantized model side by side and sum up, tensor by tensor, how they differ.

One feed is in memory at a time, and of its tensors as many as a budget allows; more of them take
another pass over the feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import DataError, VerificationError
from ptq.graph.cut import Tapped, cut, with_held_out, with_shapes_out, with_tensors_out
from ptq.graph.held import Held
from ptq.graph.types import Model
from ptq.numerics.arrays import AnyArray
from ptq.numerics.tensor_sums import TensorSums
from ptq.runtime.session import Optimization, Session, open_session, run

#: Yields the feeds, from the first, whenever it is called.
Feeds = Callable[[], Iterator[Feed]]

Shape = tuple[int, ...]

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two models.

    Attributes:
        model: its graph.
        folder: where its external data lies.
    """

    model: Model
    folder: Path


@dataclass(frozen=True, slots=True)
class Running:
    """How to run.

    Attributes:
        isolated: whether to run the cut model as well.
        threads: threads within an operator, and for sums.
        memory_bytes: about how many bytes the tensors of one feed may take.
        optimization: of the quantized model.
    """

    isolated: bool = True
    threads: int = 1
    memory_bytes: int = 256 << 20
    optimization: Optimization = "all"


@dataclass(frozen=True, slots=True)
class LayerSums:
    """What was summed up over one tensor.

    Attributes:
        accumulated: with everything before it quantized.
        isolated: with the float model's tensors before it; ``None`` if not measured.
    """

    accumulated: TensorSums
    isolated: TensorSums | None

    def __add__(self, other: LayerSums) -> LayerSums:
        isolated = self.isolated
        if isolated is not None and other.isolated is not None:
            isolated += other.isolated
        return LayerSums(self.accumulated + other.accumulated, isolated)


@dataclass(frozen=True, slots=True)
class Differences:
    """What a comparison summed up.

    Attributes:
        sums: by tensor, in the order asked for.
        samples: how many feeds were run.
        disturbed: names of outputs of the quantized model that putting tensors out changes.
    """

    sums: Mapping[str, LayerSums]
    samples: int
    disturbed: tuple[str, ...]


def shapes_of(side: Side, tensors: Sequence[str], feed: Feed) -> dict[str, Shape]:
    """Return the shapes that tensors take for one feed.

    Raises:
        DataError: the model fails on it.
    """
    tapped = with_shapes_out(side.model, tensors)
    found = _Runner(tapped, side, Running())(feed)
    return {tensor: tuple(map(int, shape)) for tensor, shape in found.items()}


def compare_tensors(
    reference: Side,
    quantized: Side,
    held: Sequence[Held],
    feeds: Feeds,
    running: Running,
    *,
    begin: Callable[[int], Callable[[], None]] = lambda _: lambda: None,
) -> Differences:
    """Sum up how far the held tensors are from the float model's.

    Args:
        reference: the float model.
        quantized: the other one.
        held: what to compare.
        feeds: what both are fed, the same whenever it is called.
        running: how.
        begin: given how many passes over the feeds there will be, returns what to call after each
            feed.

    Raises:
        DataError: there is no feed, or a model fails on one.
        VerificationError: onnxruntime does not load a model with tensors put out, or a tensor has
            not the shape that it has in the float model.
    """
    first = next(feeds(), None)
    if first is None:
        raise DataError("there is no sample to compare on; --data must hold at least one")
    shapes = shapes_of(reference, [h.tensor for h in held], first)
    plain = with_held_out(quantized.model, ())
    outputs = _Runner(plain, quantized, running)(first)
    chunks = list(_chunks(held, shapes, running))
    step = begin(len(chunks))
    sums: dict[str, LayerSums] = {}
    samples = 0
    disturbed = dict[str, None]()
    with ThreadPoolExecutor(running.threads, thread_name_prefix="ptq-compare") as pool:
        for chunk in chunks:
            trio = _Trio(reference, quantized, held, chunk, shapes, running)
            disturbed.update(dict.fromkeys(trio.disturbed(first, outputs)))
            samples = 0
            for feed in feeds():
                for tensor, found in trio.compare(feed, pool):
                    sums[tensor] = found if tensor not in sums else sums[tensor] + found
                samples += 1
                step()
    return Differences(sums, samples, tuple(disturbed))


def _open(tapped: Tapped, side: Side, running: Running) -> Session:
    return open_session(
        tapped.model,
        threads=running.threads,
        folder=side.folder,
        optimization=running.optimization,
    )


class _Runner:
    """An open session, with what its inputs and outputs are."""

    def __init__(self, tapped: Tapped, side: Side, running: Running) -> None:
        # onnxruntime does not load a graph of which nothing is wanted
        self.session = _open(tapped, side, running) if tapped.outputs else None
        self.inputs = tapped.inputs
        self.outputs = tapped.outputs
        self.names = list(dict.fromkeys(tapped.outputs.values()))

    def __call__(
        self, feed: Feed, tensors: Mapping[str, AnyArray] | None = None
    ) -> dict[str, AnyArray]:
        """Return the tensors put out, given what the user feeds and the float model's tensors."""
        known = {**(tensors or {}), **feed}
        given = {name: known[tensor] for name, tensor in self.inputs.items()}
        found = self.run(given, self.names)
        arrays = dict(zip(self.names, found, strict=True))
        return {tensor: arrays[name] for tensor, name in self.outputs.items()}

    def run(self, given: Feed, names: Sequence[str]) -> list[AnyArray]:
        """Return these outputs, be they none."""
        if self.session is None or not names:
            return []
        return run(self.session, given, names, where="a sample")


class _Trio:
    """The float model, the quantized one, and that one cut, for some of the tensors."""

    def __init__(
        self,
        reference: Side,
        quantized: Side,
        held: Sequence[Held],
        chunk: Sequence[Held],
        shapes: Mapping[str, Shape],
        running: Running,
    ) -> None:
        self.chunk = chunk
        needed = dict.fromkeys(h.tensor for h in chunk)
        self.cut: _Runner | None = None
        if running.isolated:
            tapped = cut(quantized.model, held, chunk, {t: len(s) for t, s in shapes.items()})
            self.cut = _Runner(tapped, quantized, running)
            needed.update(dict.fromkeys(tapped.inputs.values()))
        fed = {v.name for v in reference.model.graph.inputs}
        tapped = with_tensors_out(reference.model, [t for t in needed if t not in fed])
        self.float = _Runner(tapped, reference, replace(running, optimization="all"))
        tapped = with_held_out(quantized.model, chunk)
        self.whole = _Runner(tapped, quantized, running)

    def disturbed(self, feed: Feed, outputs: Mapping[str, AnyArray]) -> list[str]:
        """Return the outputs that are others where tensors are put out beside them."""
        names = [name for name in outputs if name not in self.whole.outputs.values()]
        given = {name: feed[name] for name in self.whole.inputs}
        found = self.whole.run(given, names)
        return [
            name
            for name, value in zip(names, found, strict=True)
            if not np.array_equal(value, outputs[name], equal_nan=value.dtype.kind == "f")
        ]

    def compare(self, feed: Feed, pool: ThreadPoolExecutor) -> Iterator[tuple[str, LayerSums]]:
        """Yield what one feed adds to the sums of each tensor."""
        wanted = {**feed, **self.float(feed)}
        whole = self.whole(feed)
        alone = self.cut(feed, wanted) if self.cut is not None else None

        def differ(held: Held) -> LayerSums:
            ref = wanted[held.tensor]
            try:
                accumulated = TensorSums.of(ref, whole[held.tensor], held.params)
                isolated = (
                    None if alone is None else TensorSums.of(ref, alone[held.tensor], held.params)
                )
            except VerificationError as error:
                raise VerificationError(
                    f"tensor '{held.tensor}' cannot be compared: {error}"
                ) from error
            return LayerSums(accumulated, isolated)

        yield from zip((h.tensor for h in self.chunk), pool.map(differ, self.chunk), strict=True)


def _chunks(
    held: Sequence[Held], shapes: Mapping[str, Shape], running: Running
) -> Iterator[list[Held]]:
    """Cut the tensors into runs whose values take about as much memory as allowed."""
    chunk: list[Held] = []
    taken = 0
    for h in held:
        each = _FLOAT_BYTES if h.params is None else h.params.zero_point.dtype.itemsize
        needed = prod(shapes[h.tensor]) * (_FLOAT_BYTES + each * (1 + running.isolated))
        if chunk and taken + needed > running.memory_bytes:
            yield chunk
            chunk, taken = [], 0
        chunk.append(h)
        taken += needed
    if chunk:
        yield chunk
