"""Prove a quantized model on real feeds: accuracy, and latency beside a null control."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ptq.data import Dataset
from ptq.data.feeds import Feed
from ptq.errors import VerificationError
from ptq.evaluate.accuracy import Accuracy, compare
from ptq.evaluate.latency import Latency, measure_latency
from ptq.graph.save import save_model
from ptq.progress import Stages
from ptq.runtime.session import open_session
from ptq.source import Source

#: When accuracy must be measured on calibration data, this many samples of it are enough.
_CALIBRATION_SAMPLES = 64


#: Accuracy, and latency where the model is for this runtime.
Proof: TypeAlias = tuple[Accuracy, Latency | None]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to measure on.

    Attributes:
        data: the feeds.
        labels: the right class of each row, if known.
        held_out: whether the data is other than the calibration data.
    """

    data: Dataset
    labels: np.ndarray | None
    held_out: bool

    @property
    def samples(self) -> int:
        """How many feeds are used."""
        count = len(self.data)
        return count if self.held_out else min(count, _CALIBRATION_SAMPLES)

    def feeds(self) -> Iterator[Feed]:
        """Yield the feeds to measure on."""
        return islice(iter(self.data), self.samples)


def reference_of(source: Source, folder: Path) -> Path:
    """Return the float file to measure against: the user's, or the prepared model.

    onnxruntime refuses some files that preparation repairs, such as those with node names used
    twice; the prepared model computes the same function.

    Args:
        source: the float model.
        folder: where the prepared model may be written.

    Raises:
        VerificationError: onnxruntime loads neither.
    """
    try:
        open_session(source.path)
    except VerificationError:
        prepared = folder / "prepared.onnx"
        save_model(source.model, prepared)
        open_session(prepared)
        return prepared
    return source.path


@dataclass(frozen=True, slots=True)
class Measuring:
    """How to measure.

    Attributes:
        threads: how many threads to measure accuracy with; latency is that of one.
        seconds: about how long to time.
        simulated: whether the quantized file is for another runtime: it is then run as it is
            written, without this machine's integer kernels, and not timed.
    """

    threads: int
    seconds: float
    simulated: bool


def prove(
    reference: Path, quantized: Path, evidence: Evidence, stages: Stages, how: Measuring
) -> Proof:
    """Run both files on the evidence, then time them on its first feed.

    Raises:
        VerificationError: the quantized model does not load, or gives NaN.
        DataError: the data does not fit.
    """
    with stages.stage("evaluate", evidence.samples) as step:
        accuracy = compare(
            open_session(reference, threads=how.threads),
            open_session(
                quantized, threads=how.threads, optimization="disabled" if how.simulated else "all"
            ),
            evidence.feeds(),
            labels=evidence.labels,
            on_feed=step,
        )
    if how.simulated:
        return accuracy, None
    with stages.stage("time"):
        # one thread: with more, two cores shared with other work measure the other work
        latency = measure_latency(
            partial(open_session, reference),
            partial(open_session, quantized),
            next(evidence.feeds()),
            threads=1,
            seconds=how.seconds,
        )
    return accuracy, latency
