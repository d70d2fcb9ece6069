"""Boxes of a detector: overlap, suppression of doubles, and matching with the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """What a detector found in one image.

    Attributes:
        corners: float64 ``(boxes, 4)``: two opposite corners, the smaller coordinates first.
        scores: float64 ``(boxes,)``.
        classes: int64 ``(boxes,)``.
    """

    corners: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Boxes:
        return Boxes(self.corners[which], self.scores[which], self.classes[which])

    def best_first(self) -> Boxes:
        """Return the boxes by falling score; of equal scores the first stays first."""
        return self[np.argsort(-self.scores, kind="stable")]

    def without_doubles(self, overlap: float) -> Boxes:
        """Return the boxes, best first, that no better one of their class overlaps by more.

        Reference: greedy non-maximum suppression; Felzenszwalb et al., "Object Detection with
        Discriminatively Trained Part-Based Models", PAMI 32, 2010, section 7.2.
        """
        boxes = self.best_first()
        doubles = overlaps(boxes.corners, boxes.corners) > overlap
        doubles &= boxes.classes[:, np.newaxis] == boxes.classes
        kept = np.ones(len(boxes), bool)
        for i in range(len(boxes)):
            if kept[i]:
                kept[i + 1 :] &= ~doubles[i, i + 1 :]
        return boxes[kept]


def overlaps(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union of all pairs, ``(len(a), len(b))``; 0 without area."""
    lo = np.maximum(a[:, np.newaxis, :2], b[np.newaxis, :, :2])
    hi = np.minimum(a[:, np.newaxis, 2:], b[np.newaxis, :, 2:])
    both = np.clip(hi - lo, 0, None).prod(axis=-1)
    union = _area(a)[:, np.newaxis] + _area(b) - both
    shares: Floats = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def _area(corners: Floats) -> Floats:
    area: Floats = np.clip(corners[:, 2:] - corners[:, :2], 0, None).prod(axis=-1)
    return area


def hits(found: Boxes, truth: Boxes, overlap: float) -> npt.NDArray[np.bool_]:
    """Return which of the found boxes, best first, are true.

    In that order, each takes the true box of its class that it overlaps most, of those that no
    better one has taken, if it overlaps that one by at least ``overlap``.
    """
    shared = overlaps(found.corners, truth.corners)
    shared[found.classes[:, np.newaxis] != truth.classes] = -1
    hit = np.zeros(len(found), bool)
    for i in range(len(found) if len(truth) else 0):
        best = int(shared[i].argmax())
        if shared[i, best] >= overlap:
            hit[i] = True
            shared[:, best] = -1
    return hit
