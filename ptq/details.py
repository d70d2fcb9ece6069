"""What a page shows beyond the figures of a run: errors, times and values, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ptq.calibration import Calibration
from ptq.graph.weight_ranges import WeightRange
from ptq.plan import NodePlan, Plan
from ptq.report.histograms import ActivationHistogram, Bins, Histograms, WeightHistogram
from ptq.stats.histogram import Histogram


def histograms_of(
    plan: Plan, calibration: Calibration | None, weights: Iterable[WeightRange]
) -> Histograms:
    """Return the values of a model, as pictures of them need it.

    Args:
        plan: which activations and weights are quantized, and how.
        calibration: the values of activations; ``None`` if nothing was observed.
        weights: the values of weights.
    """
    readers = {node.weight: node for node in reversed(plan.nodes) if node.weight is not None}
    return Histograms(
        activations=tuple(_activations(plan, calibration)),
        weights=tuple(_weight(found, readers[found.name]) for found in weights),
    )


def _activations(plan: Plan, calibration: Calibration | None) -> Iterator[ActivationHistogram]:
    observed = calibration.stats if calibration is not None else {}
    for name, decision in plan.tensors.items():
        stats = observed.get(name)
        if stats is not None:
            yield ActivationHistogram(
                name=name,
                bins=Bins.of(stats.hist),
                lo=decision.lo,
                hi=decision.hi,
                clip_share=decision.clip_share,
            )


def _weight(found: WeightRange, reader: NodePlan) -> WeightHistogram:
    return WeightHistogram(
        name=found.name,
        node=reader.name,
        op_type=reader.op_type,
        bins=Bins.of(Histogram.of(found.array)),
        bits=found.bits,
        scales=found.lo.size,
        symmetric=found.symmetric,
        lo=float(found.lo.min()),
        hi=float(found.hi.max()),
        least_lo=float(found.lo.max()),
        least_hi=float(found.hi.min()),
        clip_share=found.clip_share,
    )
