"""Decide by measuring which operators are worth an integer kernel on this machine.

The float model and the all-integer model are profiled in turn; a minimum cut over what their
kernels cost gives candidates, one for each guess at what conversions cost in place; these are timed
as whole models beside a null control, and the fastest is taken. What is reported of it later comes
from fresh runs, so that the luck of the winner is not part of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ptq.config import FileFormat
from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError
from ptq.evaluate.latency import Speedup, measure_latencies
from ptq.graph.save import save_model
from ptq.place.costs import Costs, Region, blocks, boundaries, charge, merged
from ptq.place.memory import Choice, Memory, recall
from ptq.progress import Stages
from ptq.report.placement import ALL, Candidate, Placement
from ptq.runtime.conversions import measure_conversions
from ptq.runtime.profile import profile_interleaved
from ptq.runtime.session import open_session
from ptq.runtime.sizes import tensor_shapes
from ptq.source import Source
from ptq.version import Version, Writer

#: The candidate that is the float model itself.
FLOAT = "float"

#: The float model with constants folded, batchnorms merged and activation functions fused.
PREPARED = "float, prepared"

#: The candidates without integer operators.
FLOATS = frozenset({FLOAT, PREPARED})

#: Conversions cost more or less in a model than alone: neighbours may have the layout already.
_FACTORS = (1.0, 0.4, 2.5)

#: All-integer is not worth timing if it is predicted to take so many times as long as float.
_HOPELESS = 1.5

#: A candidate must be this much faster than the smaller all-integer model.
_TIE = 1.02

#: On a noisy machine it must be faster by the spread, but that excuses no more than this.
_NOISE = 1.1

#: Another form of an operator must be this much faster to be tried on the whole model.
_BETTER = 1.05


class Placer:
    """Chooses the placement of one model, of which an all-integer version is there.

    Attributes:
        costs: what its operators cost in float and in integers; measured when first asked for.
    """

    def __init__(
        self,
        source: Source,
        writer: Writer,
        form: FileFormat,
        feed: Feed,
        stages: Stages,
        *,
        seconds: float,
    ) -> None:
        """Take what placing works from.

        Args:
            source: the float model.
            writer: writes candidates.
            form: how they are written.
            feed: what to run.
            stages: told of what takes time.
            seconds: about how long to profile, and to time two models; slow ones take longer.
        """
        self.source = source
        self.writer = writer
        self.form = form
        self.feed = feed
        self.stages = stages
        self.seconds = seconds
        self._known: Costs | None = None

    def choose(
        self, reference: Path, whole: Path, version: Version, memory: Memory
    ) -> tuple[Choice, Placement]:
        """Return the fastest placement, and how it was found.

        Args:
            reference: the float file to compare with.
            whole: the file with everything integer that can be.
            version: what is known of that.
            memory: where the choice of an earlier run may be.
        """
        return recall(memory, lambda: self._measure(reference, whole, version))

    def _measure(self, reference: Path, whole: Path, version: Version) -> Choice:
        costs = self.costs(whole, version.regions)
        with tempfile.TemporaryDirectory(prefix=".ptq-", dir=whole.parent) as scratch:
            return self._time(costs, reference, whole, version, Path(scratch))

    def _time(
        self, costs: Costs, reference: Path, whole: Path, version: Version, scratch: Path
    ) -> Choice:
        """Write the candidates, time them and choose."""
        cuts = {ALL: frozenset(b.name for b in costs.blocks)}
        files = {FLOAT: reference, PREPARED: scratch / "prepared.onnx", ALL: whole}
        save_model(self.source.model, files[PREPARED])
        for name, integer in self._cuts(costs):
            path = scratch / f"candidate{len(files)}.onnx"
            try:
                self.writer.write(path, self.form, {**version.keep_float, **costs.reasons(integer)})
            except UnsupportedError:
                continue  # nothing is left, or only what needs integer neighbours
            files[name], cuts[name] = path, integer
        hopeless = costs.predicted_ms(cuts[ALL]) > _HOPELESS * costs.predicted_ms(frozenset())
        if hopeless and len(cuts) > 1:
            del files[ALL]  # it would only take long, and the caches of the others
        with self.stages.stage("place"):
            openers = [partial(open_session, path) for path in files.values()]
            times = measure_latencies(
                openers, self.feed, threads=1, seconds=self.seconds * len(openers) / 2
            )
        speedups = dict(zip(files, times.speedups, strict=True))
        chosen, float_is_faster = _fastest(speedups)
        measured = {name: t.median_ms for name, t in zip(files, times.timings, strict=True)}
        candidates = tuple(
            Candidate(
                name=name,
                integer_nodes=costs.regions(cuts.get(name, frozenset())),
                predicted_ms=costs.predicted_ms(cuts[name]) if name in cuts else None,
                measured_ms=measured.get(name),
                ratio=speedups[name].median if name in speedups else None,
            )
            for name in dict.fromkeys((FLOAT, PREPARED, *cuts))
        )
        choice = Choice(
            candidates=candidates,
            chosen=chosen,
            float_is_faster=float_is_faster,
            prepared_is_faster=speedups[PREPARED].verdict == "faster",
            keep_float={**version.keep_float, **costs.reasons(cuts[chosen])},
        )
        return self._refine(choice, files[chosen], version.regions, scratch)

    def _cuts(self, costs: Costs) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield the placements that are cheapest for one guess or another, but all-integer."""
        seen = {frozenset(b.name for b in costs.blocks), frozenset[str]()}
        for factor in _FACTORS:
            integer = costs.cut(factor)
            if integer not in seen:
                seen.add(integer)
                yield f"conversions x{factor:g}", integer

    def _refine(
        self, choice: Choice, chosen: Path, regions: Sequence[Region], scratch: Path
    ) -> Choice:
        """Try other forms of operators on the chosen model, and keep those that make it faster."""
        possible = {n: v for n, v in self.writer.variants().items() if n not in choice.keep_float}
        if not possible:
            return choice
        tried = scratch / "variants.onnx"
        self.writer.write(tried, self.form, choice.keep_float, possible)
        with self.stages.stage("profile"):
            feeds = [self.feed, self.feed]
            profiles = profile_interleaved([chosen, tried], feeds, seconds=self.seconds)
        before, after = (charge(regions, kernels)[0] for kernels in profiles)
        better = {n: v for n, v in possible.items() if after[n] * _BETTER < before[n]}
        if not better:
            return choice
        self.writer.write(tried, self.form, choice.keep_float, better)
        with self.stages.stage("place"):
            openers = [partial(open_session, path) for path in (chosen, tried)]
            times = measure_latencies(openers, self.feed, threads=1, seconds=self.seconds)
        if times.speedups[1].median < _TIE:
            return choice
        return msgspec.structs.replace(choice, variants=better)

    def costs(self, whole: Path, regions: Sequence[Region]) -> Costs:
        """Profile both models, once, and return what each region costs in either."""
        if self._known is None:
            with self.stages.stage("profile"):
                self._known = self._profile(whole, regions)
        return self._known

    def _profile(self, whole: Path, regions: Sequence[Region]) -> Costs:
        with tempfile.TemporaryDirectory(prefix=".ptq-", dir=whole.parent) as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            save_model(self.source.model, prepared)
            feeds = [self.feed, self.feed]
            floats, integers = profile_interleaved([prepared, whole], feeds, seconds=self.seconds)
        placed = merged(regions, floats)
        float_ms, others_ms = charge(placed, floats)
        integer_ms, _ = charge(placed, integers)
        tensors = {t for region in regions for t in (*region.reads, *region.writes)}
        folder = self.source.folder
        shapes = tensor_shapes(self.source.model, sorted(tensors), self.feed, folder=folder)
        return Costs(
            blocks=blocks(placed, float_ms, integer_ms),
            parts={
                whole.name: tuple(r.name for r in regions if r.name in whole.members)
                for whole in placed
            },
            boundaries=boundaries(shapes, measure_conversions(), frozenset(self.feed)),
            float_readers=self._float_readers(regions),
            others_ms=others_ms,
        )

    def _float_readers(self, regions: Sequence[Region]) -> frozenset[str]:
        """Return the tensors that something reads in float whatever is chosen."""
        members = {m for region in regions for m in region.members}
        graph = self.source.model.graph
        read = {v.name or "" for v in graph.outputs}
        for node in graph:
            for value in node.outputs:
                if any((u.node.name or "") not in members for u in value.uses()):
                    read.add(value.name or "")
        return frozenset(read)


def _fastest(speedups: Mapping[str, Speedup]) -> tuple[str, bool]:
    """Return the fastest candidate with integer operators, and whether a float model is faster.

    All-integer, the smallest, is taken if none is clearly faster. Another has to be faster than
    float: with part of a model in float, size is no reason.

    Args:
        speedups: by candidate, against the user's float model.
    """
    integer = [name for name in speedups if name not in FLOATS]
    best = max(integer, key=lambda name: speedups[name].median)
    tie = max(_TIE, min(speedups[best].spread, _NOISE))
    if ALL in integer and speedups[ALL].median * tie >= speedups[best].median:
        best = ALL
    found, prepared = speedups[best], speedups[PREPARED]
    if prepared.verdict == "faster" and found.median * found.spread < prepared.median:
        return best, True
    return best, found.verdict == "slower" or (best != ALL and found.verdict != "faster")
