"""Compare a quantized model with the float one on real feeds, streaming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import DataError, VerificationError
from ptq.numerics.metrics import ErrorSums
from ptq.runtime.session import Session, run


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output is from the float model's, over all samples.

    Attributes:
        name: the output.
        sqnr_db: signal to quantization noise ratio, in dB; ``None`` if equal, which is no number.
        cosine: cosine similarity of all values together.
        max_abs: largest absolute difference.
    """

    name: str
    sqnr_db: float | None
    cosine: float
    max_abs: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How close the quantized model is to the float one.

    Attributes:
        samples: how many feeds were compared.
        outputs: one entry per floating-point output.
        sqnr_db: over all outputs together; ``None`` if all are equal.
        agreement: share of the rows in which both models have the same largest class score;
            ``None`` if no output looks like class scores: (N, C), or probabilities over a last
            axis.
        float_top1: top-1 accuracy of the float model, if labels were given.
        quantized_top1: top-1 accuracy of the quantized model, if labels were given.
    """

    samples: int
    outputs: tuple[OutputError, ...]
    sqnr_db: float | None
    agreement: float | None
    float_top1: float | None
    quantized_top1: float | None


def compare(
    reference: Session,
    quantized: Session,
    feeds: Iterable[Feed],
    *,
    labels: np.ndarray | None = None,
    on_feed: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Run both models on every feed and sum up the differences.

    Args:
        reference: the float model.
        quantized: the quantized model, with the same inputs and outputs.
        feeds: evaluation data.
        labels: the right class of every row, in the order of the feeds.
        on_feed: called after each feed.

    Raises:
        VerificationError: the quantized model gives NaN or infinity where the float one does not.
        DataError: a model fails on a feed, or there are not as many labels as rows.
    """
    names = [o.name for o in reference.get_outputs()]
    tally = _Tally(names, labels)
    for feed in feeds:
        wanted = run(reference, feed, names, where="an evaluation sample")
        got = run(quantized, feed, names, where="an evaluation sample")
        tally.add(wanted, got)
        on_feed()
    return tally.accuracy()


class _Tally:
    """Sums over the feeds."""

    def __init__(self, names: Sequence[str], labels: np.ndarray | None) -> None:
        self.names = names
        self.labels = labels
        self.errors: dict[str, ErrorSums] = {}
        self.samples = 0
        self.rows = 0
        self.agreed = 0
        self.right = [0, 0]
        self.scores = True

    def add(self, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> None:
        for name, a, b in zip(self.names, wanted, got, strict=True):
            if not np.issubdtype(np.asarray(a).dtype, np.floating):
                continue
            if a.shape != b.shape:
                raise VerificationError(
                    f"output '{name}' has shape {b.shape}, the float model gives {a.shape}"
                )
            sums = ErrorSums.of(*self._finite(name, a, b))
            self.errors[name] = self.errors[name] + sums if name in self.errors else sums
        self._count_classes(wanted, got)
        self.samples += 1

    def _finite(self, name: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what can be compared: an infinity that both models give is no error of either."""
        finite = np.isfinite(a)
        if np.isnan(a).any():
            raise DataError(
                f"output '{name}' of the float model is NaN in evaluation sample {self.samples}; "
                "check the preprocessing of the data"
            )
        if not np.array_equal(a[~finite], b[~finite]) or not np.isfinite(b[finite]).all():
            raise VerificationError(
                f"output '{name}' of the quantized model is NaN or infinite in evaluation sample "
                f"{self.samples}; exclude the operators before it with --exclude"
            )
        return (a, b) if finite.all() else (a[finite], b[finite])

    def _count_classes(self, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> None:
        index = self._scores_index(wanted)
        if index is None:
            self.scores = False
            if self.labels is not None:
                raise DataError("labels were given, but no output looks like class scores (N, C)")
            return
        a, b = (outputs[index].argmax(axis=-1).reshape(-1) for outputs in (wanted, got))
        self.agreed += int((a == b).sum())
        if self.labels is not None:
            truth = self.labels[self.rows : self.rows + len(a)]
            if len(truth) != len(a):
                raise DataError(
                    f"there are {len(self.labels)} labels, and more rows in the evaluation data"
                )
            classes = wanted[index].shape[-1]
            if truth.min(initial=0) < 0 or truth.max(initial=0) >= classes:
                raise DataError(
                    f"label {truth[(truth < 0) | (truth >= classes)][0]} is none of the model's "
                    f"{classes} classes, which count from 0"
                )
            self.right[0] += int((a == truth).sum())
            self.right[1] += int((b == truth).sum())
        self.rows += len(a)

    def _scores_index(self, outputs: Sequence[np.ndarray]) -> int | None:
        """Which output holds class scores; of several outputs only labels say that one does."""
        looks = [i for i, value in enumerate(outputs) if _looks_like_scores(value)]
        one = len(looks) == 1 and (len(outputs) == 1 or self.labels is not None)
        return looks[0] if one else None

    def accuracy(self) -> Accuracy:
        if not self.samples:
            raise DataError("there is no evaluation sample; --eval-data must hold at least one")
        if self.labels is not None and self.rows != len(self.labels):
            raise DataError(
                f"there are {len(self.labels)} labels for {self.rows} rows of evaluation data"
            )
        if not self.errors:
            raise VerificationError("the model has no floating-point output to compare")
        sums = list(self.errors.values())
        total = sum(sums[1:], start=sums[0])
        labelled = self.labels is not None
        return Accuracy(
            samples=self.samples,
            outputs=tuple(
                OutputError(n, _number(s.sqnr_db), s.cosine, s.max_abs)
                for n, s in self.errors.items()
            ),
            sqnr_db=_number(total.sqnr_db),
            agreement=self.agreed / self.rows if self.scores and self.rows else None,
            float_top1=self.right[0] / self.rows if labelled else None,
            quantized_top1=self.right[1] / self.rows if labelled else None,
        )


def _number(decibels: float) -> float | None:
    """JSON has no infinity."""
    return decibels if math.isfinite(decibels) else None


def _looks_like_scores(value: np.ndarray) -> bool:
    """Whether the last axis holds classes: (N, C) logits, or probabilities of any rank."""
    if not np.issubdtype(value.dtype, np.floating) or value.ndim < 2 or value.shape[-1] < 2:
        return False
    if value.ndim == 2:
        return True
    sums = value.sum(axis=-1)
    return bool(value.min(initial=0.0) >= 0.0 and np.allclose(sums, 1.0, atol=1e-3))
