"""Train a job from data to result, by the built-in trainer or another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptq.data import ImageOptions
from ptq.errors import ConfigError
from ptq.progress import Stages
from ptq.train.data_folder import data_folder
from ptq.train.external import Trainer, train_externally
from ptq.train.job import Job, Result
from ptq.train.judging import Judge
from ptq.train.sample_rows import Samples
from ptq.train.samples import collect, held_out, labels_for, open_data
from ptq.train.trainer import TrainOptions, train


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """What to train on.

    Attributes:
        source: in any form that calibration data has.
        samples: how many to use; ``None`` for all.
        labels: a file with the class of each row.
        images: how to prepare images.
    """

    source: str
    samples: int | None = None
    labels: Path | None = None
    images: ImageOptions | None = None


def run_job(job: Job, data: TrainData, options: TrainOptions, stages: Stages) -> Result:
    """Train a job with the built-in trainer, and write the outcome into its folder.

    Raises:
        PtqError: as `ptq.train.trainer.train` and `ptq.train.samples.collect`.
    """
    held = held_out(job, stages=stages, threads=options.threads)
    samples = _samples(job, data, held, options, stages)
    outcome = train(job, samples, held, options, stages)
    said = [*samples.notices, *outcome.result.notices]
    if data.labels is not None and job.manifest.labels is None:
        said.append("--labels is not used: the job trains on what the float model says")
    result = msgspec.structs.replace(outcome.result, notices=tuple(said))
    job.write(outcome.parameters, result)
    return result


def run_externally(
    job: Job,
    data: TrainData,
    trainer: Trainer,
    options: TrainOptions,
    stages: Stages,
    timeout: float | None = None,
) -> Result:
    """Let another trainer train a job, judge what it wrote, and write that beside it.

    Args:
        job: the job.
        data: is in its folder while the trainer runs.
        trainer: the trainer.
        options: of which the seed and the threads count.
        stages: told of every step.
        timeout: seconds that a command may take.

    Raises:
        PtqError: as `ptq.train.external.train_externally` and `ptq.train.samples.collect`.
    """
    held = held_out(job, stages=stages, threads=options.threads)
    judge = Judge(job, held, options.threads)
    with data_folder(job) as folder:
        samples = _samples(job, data, held, options, stages, folder)
        trained = train_externally(job, samples, trainer, stages, timeout)
    said = trained.result
    before = judge.judge(job.parameters(), 0)
    after = judge.judge(trained.parameters, said.steps)
    notices = [*samples.notices, *said.notices]
    if after is None:
        notices.append("the loss of what the trainer wrote is no finite number")
    result = msgspec.structs.replace(
        said,
        before=before,
        best=after,
        evaluations=tuple(e for e in (before, after) if e is not None),
        notices=tuple(notices),
    )
    job.write(trained.parameters, result)
    return result


def _samples(
    job: Job,
    data: TrainData,
    held: Samples,
    options: TrainOptions,
    stages: Stages,
    folder: Path | None = None,
) -> Samples:
    """Return the samples to train on, without those that the job holds out."""
    if job.manifest.labels is not None and data.labels is None:
        raise ConfigError("the job trains on labels; give --labels")
    opened = open_data(
        job, data.source, samples=data.samples, seed=options.seed, images=data.images
    )
    labels = None if data.labels is None else labels_for(opened, data.labels)
    return collect(
        job, opened, labels, stages=stages, threads=options.threads, folder=folder, apart=held
    )
