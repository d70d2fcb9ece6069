"""Intersection over union of maps, such as masks of a segmentation."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.data.labels import Labels
from ptq.errors import ConfigError
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.outputs import floating, only, pair


class IoU(Metric, frozen=True, tag="iou"):
    """Overlap of the maps above ``threshold`` with the float model's: intersection over union.

    Intersections and unions are added over all samples before they are divided. Each feed is a
    unit.

    Attributes:
        threshold: a value above it is in the mask.
        output: the only output that counts; all floating-point ones if empty.
        argmax: the axis of classes; masks are then where a class is the best, and the figure is
            the mean over the classes that either model finds.
    """

    empty = "no value of either model is above the threshold; give a lower one, iou:threshold=0.3"
    paper: ClassVar[str] = (
        "Everingham et al., The Pascal Visual Object Classes Challenge: A Retrospective, "
        "IJCV 111, 2015"
    )

    threshold: float = 0.5
    output: str = ""
    argmax: int | None = None

    @property
    def title(self) -> str:
        """``IoU above 0.5``, or ``mean IoU``."""
        what = "mean IoU" if self.argmax is not None else f"IoU above {self.threshold:g}"
        return f"{what} of '{self.output}'" if self.output else what

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(intersection, union)`` of one feed, or for each class both."""
        if self.argmax is not None:
            name = only(reference, self.output, "class scores")
            return self._by_class(*pair(got, reference, name), name, self.argmax)
        fields = np.zeros((1, 2))
        for name in floating(reference, self.output):
            a, b = (value > self.threshold for value in pair(got, reference, name))
            fields += (a & b).sum(), (a | b).sum()
        return fields

    def _by_class(self, got: np.ndarray, reference: np.ndarray, name: str, axis: int) -> Sums:
        if not -reference.ndim <= axis < reference.ndim:
            raise ConfigError(
                f"output '{name}' has {reference.ndim} axes, and argmax={axis} is none of them"
            )
        classes = reference.shape[axis]
        a, b = got.argmax(axis=axis).ravel(), reference.argmax(axis=axis).ravel()
        both = np.bincount(a[a == b], minlength=classes)
        union = np.bincount(a, minlength=classes) + np.bincount(b, minlength=classes) - both
        return np.concatenate([both, union]).astype(np.float64)[np.newaxis]

    def figure(self, sums: Sums) -> Sums:
        """Return the overlap, or its mean over the classes that occur."""
        half = sums.shape[-1] // 2
        overlap = ratio(sums[..., :half], sums[..., half:])
        occurs = ~np.isnan(overlap)
        return ratio(np.where(occurs, overlap, 0.0).sum(axis=-1), occurs.sum(axis=-1))
