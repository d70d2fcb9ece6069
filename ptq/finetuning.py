"""Train a quantized network for a short while, and take over what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ptq.config import QuantizeConfig
from ptq.data import Dataset
from ptq.data.dataset import evenly_spaced
from ptq.data.feeds import Feed
from ptq.errors import ConfigError
from ptq.graph.site import Sites
from ptq.looked_at import LookedAt
from ptq.plan import Plan
from ptq.progress import Stages
from ptq.ranging import Part
from ptq.refining import Refined
from ptq.source import Source
from ptq.train.deploy import deploy
from ptq.train.export import JobSettings, JobSource, write_job
from ptq.train.job import Job, read_trained
from ptq.train.manifest import Loss, LossKind, Manifest
from ptq.train.network import Network
from ptq.train.samples import collect, held_out, held_out_data
from ptq.train.trainer import TrainOptions, train

#: Samples for each run of the training graph, at most.
BATCH = 32

#: Of the samples, one in so many is kept out of training to judge on, and no more than that.
_HELD_OUT, _MOST_HELD_OUT = 8, 64

#: Samples that a job is made from: a batch is of these.
_READ = 32


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A quantized network that can be trained.

    Attributes:
        network: the float network with trained quantizers.
        sites: what becomes integer in it.
        plan: the scales that training starts from.
        source: the float model.
        config: the settings.
    """

    network: Network
    sites: Sites
    plan: Plan
    source: Source
    config: QuantizeConfig

    def export(
        self,
        folder: Path,
        feeds: Iterable[Feed],
        held: Sequence[Feed],
        *,
        labels: bool = False,
        keep_float: tuple[str, ...] = (),
        timed: bool = False,
    ) -> Manifest:
        """Write the training job into a folder.

        Args:
            folder: where.
            feeds: samples to train on; the first few are read.
            held: samples to judge on.
            labels: whether to train on labels.
            keep_float: nodes that stay in float, by name.
            timed: whether to measure which ways to gradients are fastest.

        Raises:
            UnsupportedError: nothing can be trained.
            DataError: the samples do not make up a batch.
        """
        config = self.config
        kind: LossKind = "labels" if labels else config.loss
        settings = JobSettings(
            method=config.fine_tune,
            weight_bits=config.bits,
            activation_bits=config.activation_bits,
            loss=Loss(kind=kind),
            batch=BATCH,
            config=msgspec.to_builtins(config),
            keep_float=keep_float,
            timed=timed,
        )
        source, network = self.source, self.network
        few = list(islice(feeds, _READ))
        made_from = JobSource(network, source.model, source.folder, source.inputs, few, held)
        return write_job(folder, made_from, settings)

    def taken_over(self, before: Refined, trained: Mapping[str, np.ndarray]) -> Refined:
        """Return what was found before, with what training found in its place.

        Args:
            before: what training began with.
            trained: the parameters, by name.

        Raises:
            VerificationError: the parameters make no integer model.
        """
        found = deploy(self.network, trained, self.plan, self.sites, self.source.model)
        return replace(
            before,
            factors={},
            weights={},
            shifts={**before.shifts, **found.shifts},
            given=found.weights,
            latent={name: trained[name] for name in self.network.starts},
            decisions=found.decisions,
        )


def fine_tune(
    trainable: Trainable,
    before: Refined,
    data: Dataset,
    kept_out: Collection[int],
    stages: Stages,
    threads: int,
) -> Refined:
    """Train a network on calibration data, towards what the float model puts out.

    Args:
        trainable: the network.
        before: what it starts with.
        data: the samples; they are read once, and kept in files while training goes on.
        kept_out: positions of samples that are for judging the result.
        stages: told of what takes time.
        threads: for onnxruntime.

    Raises:
        UnsupportedError: nothing can be trained.
        DataError: the samples do not fit.
    """
    config = trainable.config
    train_on, judge_on = split(alike(data), kept_out)
    with TemporaryDirectory(prefix="ptq-train-") as name:
        folder = Path(name)
        with stages.stage("export"):
            judged = list(Part(data, judge_on))
            trainable.export(folder, Part(data, train_on), judged)
        job = Job.open(folder)
        samples = collect(job, Part(data, train_on), stages=stages, threads=threads)
        held = held_out(job, stages=stages, threads=threads)
        options = TrainOptions(
            steps=config.steps,
            lr=config.learning_rate,
            seed=config.seed,
            patience=0,
            checkpoint_every=config.steps,
            threads=threads,
        )
        outcome = train(job, samples, held, options, stages)
    return trainable.taken_over(before, outcome.parameters)


def alike(data: Dataset) -> list[int]:
    """Return the positions of the samples of the most common shapes: a training graph takes one."""
    found: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for position, feed in enumerate(data):
        # rows are joined, and cut, to batches
        key = tuple((name, array.shape[1:]) for name, array in feed.items())
        found.setdefault(key, []).append(position)
    return max(found.values(), key=len)


def split(
    available: Sequence[int], kept_out: Collection[int] = ()
) -> tuple[Sequence[int], Sequence[int]]:
    """Return which samples to train on, and which to judge on while training; all if few.

    Args:
        available: positions of the samples that there are.
        kept_out: which are for neither, unless there are no others.
    """
    free = [i for i in available if i not in kept_out]
    if not free:
        return available, available
    count = min(len(free) // _HELD_OUT, _MOST_HELD_OUT)
    if not count:
        return free, free
    judged = {free[i] for i in evenly_spaced(len(free), count)}
    return [i for i in free if i not in judged], sorted(judged)


def judged_on(folder: Path) -> LookedAt:
    """Return the held-out feeds of a job, which is all there is to judge on.

    Raises:
        PtqError: there is no job, or it is damaged.
    """
    data, labels = held_out_data(Job.open(folder))
    feeds = list(data)
    return LookedAt(feeds, feeds, labels)


def import_trained(trainable: Trainable, before: Refined, folder: Path) -> Refined:
    """Return what a trainer made of a job.

    Args:
        trainable: the network that the job was exported from, made anew.
        before: what it started with.
        folder: the job.

    Raises:
        ConfigError: the job is of another network.
        TrainingError: the trainer left nothing, or nothing that fits.
    """
    job = Job.open(folder)
    found = read_trained(job)
    ours = {p.parameter.name: np.shape(p.parameter.start) for p in trainable.network.parameters}
    theirs = {a.name: a.shape for a in job.manifest.parameters}
    if ours != theirs:
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
        raise ConfigError(
            f"'{folder}' was exported by another version of ptq, which made other parameters of "
            f"its model ('{differing}'); export the job anew"
        )
    return trainable.taken_over(before, found.parameters)
