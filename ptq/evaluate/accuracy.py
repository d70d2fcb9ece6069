"""Compare a quantized model with the float one on real feeds, streaming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import DataError, VerificationError
from ptq.metrics.class_scores import scores_index
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
            sums = ErrorSums.of(*comparable(name, a, b, self.samples))
            self.errors[name] = self.errors[name] + sums if name in self.errors else sums
        self._count_classes(wanted, got)
        self.samples += 1

    def _count_classes(self, wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> None:
        # of several outputs, only labels say that one holds scores
        index = scores_index(wanted, told=self.labels is not None)
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


def comparable(
    name: str, wanted: np.ndarray, got: np.ndarray, sample: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what can be compared: an infinity that both models give is no error of either.

    Args:
        name: the output.
        wanted: what the float model gives.
        got: what the quantized model gives, of the same shape.
        sample: which evaluation sample this is.

    Raises:
        DataError: the float model gives NaN.
        VerificationError: the quantized model gives NaN or another infinity.
    """
    finite = np.isfinite(wanted)
    if np.isnan(wanted).any():
        raise DataError(
            f"output '{name}' of the float model is NaN in evaluation sample {sample}; "
            "check the preprocessing of the data"
        )
    if not np.array_equal(wanted[~finite], got[~finite]) or not np.isfinite(got[finite]).all():
        raise VerificationError(
            f"output '{name}' of the quantized model is NaN or infinite in evaluation sample "
            f"{sample}; exclude the operators before it with --exclude"
        )
    return (wanted, got) if finite.all() else (wanted[finite], got[finite])


def _number(decibels: float) -> float | None:
    """JSON has no infinity."""
    return decibels if math.isfinite(decibels) else None
