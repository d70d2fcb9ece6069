"""How good parameters are on held-out feeds: the loss that is trained, in numpy, and top-1.

The same mathematics as in the training graph; an output that holds probabilities counts as the
scores that their logarithms are, which have the same softmax at any temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptq.errors import TrainingError
from ptq.metrics.class_scores import looks_like_scores, scores_index
from ptq.train.manifest import Loss


@dataclass(slots=True)
class HeldOutLoss:
    """Adds up the loss over batches of held-out rows.

    Attributes:
        loss: which.
    """

    loss: Loss
    _sums: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    _right: int = 0
    _labelled: int = 0

    def add(
        self,
        outputs: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        labels: np.ndarray | None,
    ) -> None:
        """Add a batch.

        Args:
            outputs: of the network.
            targets: what the teacher makes of each of them.
            labels: the classes of the rows, if they are known.

        Raises:
            TrainingError: there are labels, and no output has one row of class scores for each.
        """
        if labels is not None:
            self._add_labels(outputs, labels)
        if self.loss.kind == "labels":
            return
        for index, (found, wanted) in enumerate(zip(outputs, targets, strict=False)):
            if found.shape != wanted.shape or not np.issubdtype(found.dtype, np.floating):
                continue
            if self.loss.kind == "kl" and looks_like_scores(found):
                sums = _divergence(found, wanted, self.loss.temperature)
                self._add((index, "kl"), sums)
            else:
                y, t = found.astype(np.float64), wanted.astype(np.float64)
                self._add((index, "mse"), np.array([np.sum((y - t) ** 2), np.sum(t**2)]))

    @property
    def value(self) -> float:
        """The loss of all rows.

        Raises:
            TrainingError: nothing could be compared.
        """
        if not self._sums:
            raise TrainingError(
                f"the loss '{self.loss.kind}' cannot be computed of the held-out feeds; export the "
                "job with labels for them"
                if self.loss.kind == "labels"
                else "no output can be compared with what the teacher puts out; export the job anew"
            )
        terms = [sums[0] / sums[1] if sums[1] else sums[0] for sums in self._sums.values()]
        return float(np.mean(terms))

    @property
    def top1(self) -> float | None:
        """Share of the labelled rows whose class is right."""
        return self._right / self._labelled if self._labelled else None

    def _add(self, key: tuple[int, str], sums: np.ndarray) -> None:
        self._sums[key] = self._sums.get(key, np.zeros(2)) + sums

    def _add_labels(self, outputs: Sequence[np.ndarray], labels: np.ndarray) -> None:
        index = scores_index(outputs, told=True)
        if index is None or outputs[index].shape[:-1] != labels.shape:
            raise TrainingError(
                "the held-out feeds have labels, and no output has one row of class scores for "
                "each; export the job without labels"
            )
        scores = outputs[index]
        if labels.size and not 0 <= labels.min() <= labels.max() < scores.shape[-1]:
            raise TrainingError(
                f"the labels of the held-out feeds go from {labels.min()} to {labels.max()}, and "
                f"there are {scores.shape[-1]} classes, which count from 0"
            )
        self._right += int((scores.argmax(axis=-1) == labels).sum())
        self._labelled += len(labels)
        if self.loss.kind == "labels":
            logs = _log_softmax(_scores(scores))
            chosen = np.take_along_axis(logs, labels[:, np.newaxis], axis=-1)
            self._add((index, "labels"), np.array([-chosen.sum(), len(labels)]))


def _divergence(found: np.ndarray, wanted: np.ndarray, temperature: float) -> np.ndarray:
    """Return the sum of ``T² Σ p log(p / q)`` over answers, and how many there are."""
    q = _log_softmax(_scores(found) / temperature)
    p = _log_softmax(_scores(wanted) / temperature)
    rows = (np.exp(p) * (p - q)).sum(axis=-1)
    return np.array([temperature**2 * rows.sum(), rows.size])


def _scores(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    probabilities = values.min(initial=0.0) >= 0.0 and np.allclose(
        values.sum(axis=-1), 1.0, atol=1e-3
    )
    return np.log(np.maximum(values, 1e-30)) if probabilities else values


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
