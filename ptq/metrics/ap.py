"""Average precision of the detected boxes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.data.labels import Labels
from ptq.errors import VerificationError
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.boxes import Boxes, hits
from ptq.metrics.detections import Corners, Layout, combined, require_places, separate

Share = Annotated[float, Meta(gt=0.0, le=1.0)]

#: Into so many steps the scores below, and those from ``score`` up, are rounded.
_BELOW, _ABOVE = 64, 192


class AveragePrecision(Metric, frozen=True, tag="ap"):
    """Average precision of the boxes, where the float model's boxes are taken for the truth.

    It is the area below the precision-recall curve at all points, precision made monotone, in one
    ranking of all classes and images. Scores are ranked in 256 steps, so that the figure adds up:
    boxes in one step count as equally good. An image is a unit, and adds 513 numbers.

    Attributes:
        boxes: the output with the coordinates.
        scores: the output with their scores in 0..1, possibly for each class.
        classes: the output with their classes, if it is not an axis of the scores.
        corners: what the coordinates are: two corners, or centre and size.
        output: one output that holds all of this, in place of the three.
        layout: how: ``yolo`` (N, 4 + classes, boxes) with centre and size, or ``rows``
            (N, boxes, 6) with corners, score and class; ``auto`` goes by the shape.
        iou: a box is found if the overlap, intersection over union, is at least this.
        score: the float model's boxes from this score up are the truth.
        least: the quantized model's boxes of a lower score are left out.
        nms: of two boxes of a class that overlap more, the one of lower score is left out.
    """

    empty = "the float model finds no box; give a lower score, as in ap:score=0.1"
    paper: ClassVar[str] = (
        "Everingham et al., The Pascal Visual Object Classes Challenge: A Retrospective, "
        "IJCV 111, 2015"
    )

    boxes: str = ""
    scores: str = ""
    classes: str = ""
    corners: Corners = "xyxy"
    output: str = ""
    layout: Layout = "auto"
    iou: Share = 0.5
    score: Share = 0.3
    least: Share = 0.05
    nms: Share = 0.5

    @property
    def title(self) -> str:
        """``AP50 against float``."""
        return f"AP{100 * self.iou:g} against float"

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return for each image true boxes by score, found boxes by score, and those to find."""
        require_places(reference, self.boxes, self.scores, self.output)
        found, wanted = self._read(got), self._read(reference)
        if len(found) != len(wanted):
            raise VerificationError(
                f"the boxes are of {len(found)} images, the float model's of {len(wanted)}"
            )
        fields = [self._fields(f, w) for f, w in zip(found, wanted, strict=True)]
        return np.array(fields, np.float64).reshape(-1, 2 * (_BELOW + _ABOVE) + 1)

    def _read(self, outputs: Outputs) -> list[Boxes]:
        least = min(self.least, self.score)
        if self.output:
            images = combined(outputs, self.output, self.layout, least)
        else:
            images = separate(outputs, self.boxes, self.scores, self.classes, self.corners, least)
        return [boxes.without_doubles(self.nms) for boxes in images]

    def _fields(self, found: Boxes, wanted: Boxes) -> Sums:
        truth = wanted[wanted.scores >= self.score]
        true = hits(found, truth, self.iou)
        steps = np.digitize(found.scores, self._edges()) - 1
        count = _BELOW + _ABOVE
        return np.concatenate(
            [
                np.bincount(steps[true], minlength=count),
                np.bincount(steps, minlength=count),
                [len(truth)],
            ]
        ).astype(np.float64)

    def _edges(self) -> Sums:
        """Return where steps begin; ``score`` is one, so that the float model itself gets 1."""
        least = min(self.least, self.score)
        below = np.linspace(least, self.score, _BELOW, endpoint=False)
        return np.concatenate([below, np.linspace(self.score, 1.0, _ABOVE, endpoint=False)])

    def figure(self, sums: Sums) -> Sums:
        """Return the area below the curve; NaN if there is nothing to find."""
        count = _BELOW + _ABOVE
        true, found = sums[..., count - 1 :: -1], sums[..., 2 * count - 1 : count - 1 : -1]
        ranked = np.cumsum(found, axis=-1)
        precision = np.divide(
            np.cumsum(true, axis=-1), ranked, out=np.zeros_like(ranked), where=ranked > 0
        )
        highest = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        return ratio((true * highest).sum(axis=-1), sums[..., -1])
