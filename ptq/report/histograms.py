"""Histograms of activations and weights with the ranges that their codes cover, as data."""

from __future__ import annotations

import msgspec

from ptq.stats.histogram import Histogram

#: At most so many bins are kept: what a small picture can show.
MOST_BINS = 64


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of values in bins of equal width; exact zeros are counted apart.

    Attributes:
        lo: lower end of the first bin, exact.
        width: of a bin, a power of two; 0 if there is no bin.
        counts: of each bin; the first and the last are not empty.
        zeros: how many values are exactly zero; they are in no bin.
    """

    lo: float
    width: float
    counts: tuple[int, ...]
    zeros: int

    @classmethod
    def of(cls, histogram: Histogram) -> Bins:
        """Return a histogram with so few bins that a picture shows them; every count is exact."""
        exponent = histogram.exponent
        while histogram.counts.size > MOST_BINS:
            exponent += 1
            histogram = histogram.coarsened(exponent)
        edges = histogram.edges()
        return cls(
            lo=float(edges[0]) if edges.size else 0.0,
            width=histogram.width,
            counts=tuple(histogram.counts.tolist()),
            zeros=histogram.zeros,
        )

    @property
    def hi(self) -> float:
        """The upper end of the last bin."""
        return self.lo + self.width * len(self.counts)

    @property
    def total(self) -> int:
        """How many values there are, zeros included."""
        return sum(self.counts) + self.zeros


class ActivationHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one quantized activation in calibration.

    Attributes:
        name: the tensor.
        bins: the values; of a large tensor, a sample of them.
        lo: lower end of the clipping range.
        hi: upper end of it.
        clip_share: share of the values outside of it, 0..1.
    """

    name: str
    bins: Bins
    lo: float
    hi: float
    clip_share: float


class WeightHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one weight before it was quantized.

    Attributes:
        name: the weight.
        node: the first node that reads it.
        op_type: that node's operator.
        bins: all of its values.
        bits: width of its codes.
        scales: how many scales it has: one, one for each channel, or one for each block.
        symmetric: whether all zero points are the code in the middle of the grid.
        lo: the lowest value that any channel's codes cover.
        hi: the highest such value.
        least_lo: the lowest value that all channels' codes cover.
        least_hi: the highest such value.
        clip_share: share of the values outside of their channel's range, 0..1; ``None`` where
            the file does not say which values share a scale.
    """

    name: str
    node: str
    op_type: str
    bins: Bins
    bits: int
    scales: int
    symmetric: bool
    lo: float
    hi: float
    least_lo: float
    least_hi: float
    clip_share: float | None = None


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to see of a model's values.

    Attributes:
        activations: every quantized activation that was observed itself, in the plan's order.
        weights: every quantized weight of the main graph, in the order of their readers.
    """

    activations: tuple[ActivationHistogram, ...] = ()
    weights: tuple[WeightHistogram, ...] = ()
