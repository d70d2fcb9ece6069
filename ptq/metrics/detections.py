"""Reading boxes from the outputs of a detector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from ptq.errors import ConfigError, DataError
from ptq.metrics.base import Outputs
from ptq.metrics.boxes import Boxes
from ptq.metrics.outputs import named

Layout = Literal["auto", "yolo", "rows"]
Corners = Literal["xyxy", "cxcywh"]

#: No image has more boxes that matter, and all pairs of them are compared.
_MOST = 1000


def combined(outputs: Outputs, name: str, layout: Layout, least: float) -> Iterator[Boxes]:
    """Yield the boxes of each image from one output that holds all of them.

    Args:
        outputs: of a detector.
        name: the output: ``yolo``, (N, 4 + classes, boxes) with centre and size, or ``rows``,
            (N, boxes, 6) or (boxes, 6) with corners, score and class.
        layout: which of the two, or by the shape.
        least: boxes of a lower score are left out.

    Raises:
        ConfigError: there is no such output.
        DataError: its shape is neither, or the scores are none.
    """
    value = np.asarray(named(outputs, name), np.float64)
    images = value[np.newaxis] if value.ndim == 2 else value
    if layout == "auto":
        layout = "rows" if value.shape[-1:] == (6,) else "yolo"
    if images.ndim != 3 or (images.shape[2] != 6 if layout == "rows" else images.shape[1] < 5):
        raise DataError(
            f"output '{name}' has shape {value.shape}; boxes are (N, 4 + classes, boxes) with "
            "layout=yolo, or (N, boxes, 6) with layout=rows; or name boxes= and scores="
        )
    for image in images:
        if layout == "yolo":
            yield _boxes(image[:4].T, image[4:].T, None, "cxcywh", name, least)
        else:
            yield _boxes(image[:, :4], image[:, 4:5], image[:, 5], "xyxy", name, least)


def separate(
    outputs: Outputs, boxes: str, scores: str, classes: str, corners: Corners, least: float
) -> Iterator[Boxes]:
    """Yield the boxes of each image from outputs of their own.

    Args:
        outputs: of a detector.
        boxes: the output with (N, boxes, 4) or (boxes, 4) coordinates.
        scores: the output with (N, boxes) scores, (N, boxes, classes) or (N, classes, boxes).
        classes: the output with (N, boxes) classes; if empty, the scores have an axis of them, or
            all boxes are of one class.
        corners: what the coordinates are; x and y may change places.
        least: boxes of a lower score are left out.

    Raises:
        ConfigError: there is no such output.
        DataError: the shapes do not fit, or the scores are none.
    """
    where = np.asarray(named(outputs, boxes), np.float64)
    values = np.asarray(named(outputs, scores), np.float64)
    kinds = np.asarray(named(outputs, classes)) if classes else None
    if where.ndim == 2:
        where, values = where[np.newaxis], values[np.newaxis]
        kinds = kinds if kinds is None else kinds[np.newaxis]
    head = where.shape[:2]
    if values.ndim == 3 and values.shape[1] != head[-1] and values.shape[2] == head[-1]:
        values = values.transpose(0, 2, 1)
    one_each = values.ndim == 2 or values.shape[2:] == (1,)
    if where.ndim != 3 or where.shape[2] != 4 or values.shape[:2] != head or values.ndim > 3:
        raise DataError(
            f"output '{boxes}' has shape {where.shape} and '{scores}' {values.shape}; boxes are "
            "(N, boxes, 4), scores (N, boxes) or (N, boxes, classes)"
        )
    if kinds is not None and not (one_each and kinds.shape == head):
        raise DataError(
            f"output '{classes}' has shape {kinds.shape}; with classes=, it and the scores hold "
            "one number for each box"
        )
    for i in range(len(where)):
        kind = None if kinds is None else kinds[i]
        yield _boxes(where[i], values[i].reshape(head[1], -1), kind, corners, scores, least)


def require_places(outputs: Outputs, boxes: str, scores: str, output: str) -> None:
    """Raise `ConfigError` unless it is said, in one of the two ways, where the boxes are."""
    if bool(output) == bool(boxes or scores) or bool(boxes) != bool(scores):
        raise ConfigError(
            "metric 'ap' must know where the boxes are; give ap:boxes=OUTPUT,scores=OUTPUT or "
            f"ap:output=OUTPUT, of the outputs {', '.join(outputs)}"
        )


def _boxes(
    coordinates: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray | None,
    corners: Corners,
    name: str,
    least: float,
) -> Boxes:
    """Return the boxes of one image: for each class of each box that reaches the least score."""
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise DataError(
            f"output '{name}' holds scores in {scores.min():g}..{scores.max():g}; "
            "scores of boxes lie in 0..1, behind the sigmoid or softmax"
        )
    which, kind = np.nonzero(scores >= least)
    best = np.argsort(-scores[which, kind], kind="stable")[:_MOST]
    which, kind = which[best], kind[best]
    place = coordinates[which]
    if corners == "cxcywh":
        middle, half = place[:, :2], place[:, 2:] / 2
        place = np.concatenate([middle - half, middle + half], axis=1)
    found = Boxes(place, scores[which, kind], kind if classes is None else _whole(classes[which]))
    has_area = np.asarray((place[:, 2:] > place[:, :2]).all(axis=1))  # or it overlaps with nothing
    return found[has_area]


def _whole(classes: np.ndarray) -> npt.NDArray[np.int64]:
    return np.asarray(np.rint(classes), np.int64)
