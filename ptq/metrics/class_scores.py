"""Which output holds class scores, and at what rank a class stands in a row of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptq.errors import ConfigError, DataError
from ptq.metrics.base import Outputs
from ptq.metrics.outputs import floating


def looks_like_scores(value: np.ndarray) -> bool:
    """Whether the last axis holds classes: (N, C) logits, or probabilities of any rank."""
    if not np.issubdtype(value.dtype, np.floating) or value.ndim < 2 or value.shape[-1] < 2:
        return False
    if value.ndim == 2:
        return True
    sums = value.sum(axis=-1)
    return bool(value.min(initial=0.0) >= 0.0 and np.allclose(sums, 1.0, atol=1e-3))


def scores_index(outputs: Sequence[np.ndarray], *, told: bool) -> int | None:
    """Return which output holds class scores, or ``None``.

    Args:
        outputs: of a model, on one feed.
        told: whether the user says that one does, by giving labels or by asking for a metric of
            classes; otherwise, one of several outputs may look like scores by chance.
    """
    looks = [i for i, value in enumerate(outputs) if looks_like_scores(value)]
    one = len(looks) == 1 and (len(outputs) == 1 or told)
    return looks[0] if one else None


def scores_output(outputs: Outputs, name: str) -> str:
    """Return the output that holds class scores: the one that is asked for, or looks like it.

    Raises:
        ConfigError: the output that is asked for does not exist or is not floating-point.
        DataError: none, or more than one, looks like class scores; or it has no axis of classes.
    """
    if name:
        [found] = floating(outputs, name)
        if outputs[found].ndim == 0 or outputs[found].shape[-1] < 2:
            raise DataError(
                f"output '{name}' has shape {outputs[name].shape}; class scores need a last axis "
                "of two or more classes"
            )
        return found
    names = list(outputs)
    index = scores_index(list(outputs.values()), told=True)
    if index is None:
        raise DataError(
            "no output, or more than one, looks like class scores (N, C); name it with output=: "
            f"{', '.join(names)}"
        )
    return names[index]


def as_rows(scores: np.ndarray) -> np.ndarray:
    """Return scores as ``(units, answers, classes)``: (N, C) has one answer a row.

    The positions of a sequence (N, T, C) are answers of one unit, for they are not independent.
    """
    if scores.ndim < 3:
        return scores.reshape(-1, 1, scores.shape[-1])
    return scores.reshape(len(scores), int(np.prod(scores.shape[1:-1])), scores.shape[-1])


def rank_of(scores: np.ndarray, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many classes stand before the given one, 0 for the best.

    Of equal scores the first counts as better, as argmax has it.

    Args:
        scores: ``(units, answers, classes)``.
        classes: ``(units, answers)``.
    """
    classes = classes[..., np.newaxis]
    score = np.take_along_axis(scores, classes, axis=-1)
    earlier = np.arange(scores.shape[-1]) < classes
    before = (scores > score) | ((scores == score) & earlier)
    return np.asarray(before.sum(axis=-1), np.int64)


def among_best(
    scores: np.ndarray, classes: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.float64]:
    """Return for each unit how many answers are among the best ``k``, and how many there are.

    Args:
        scores: ``(units, answers, classes)``.
        classes: ``(units, answers)``.
        k: how many of the classes count.

    Raises:
        ConfigError: there are no more classes than that.
    """
    if k >= scores.shape[-1]:
        raise ConfigError(
            f"with k={k}, every answer of {scores.shape[-1]} classes is right; give a smaller k"
        )
    right = rank_of(scores, classes) < k
    answers = np.full(len(right), right.shape[1])
    return np.stack([right.sum(axis=1), answers], axis=1).astype(np.float64)
