"""How the built-in trainer trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ptq.errors import ConfigError
from ptq.train.job import Job
from ptq.train.optimizers import OptimizerName

#: Steps unless told otherwise.
STEPS = 300

#: About how many samples a step takes unless told otherwise.
BATCH = 32

#: How often to evaluate unless told otherwise: so many times in all.
_EVALUATIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How to train.

    Attributes:
        steps: how many; by default as `epochs` says, or 300.
        epochs: how many times through the samples, in place of steps.
        batch: samples a step, a multiple of what the graph takes; by default about 32.
        lr: the highest learning rate.
        schedule: how the rate goes over the steps.
        optimizer: which.
        seed: of the order of the samples.
        eval_every: steps from one evaluation to the next; by default a tenth of all.
        patience: evaluations without gain after which training ends; 0 for never.
        checkpoint_every: steps from one checkpoint to the next; by default as evaluations.
        resume: go on from a checkpoint, if there is one.
        threads: for onnxruntime.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int | None = None
    lr: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: OptimizerName = "adam"
    seed: int = 0
    eval_every: int | None = None
    patience: int = 5
    checkpoint_every: int | None = None
    resume: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.steps is not None and self.epochs is not None:
            raise ConfigError("--steps and --epochs exclude each other; give one of them")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"a learning rate of {self.lr:g} trains nothing; give one above 0")

    def batch_for(self, job: Job) -> int:
        """Return how many samples a step takes.

        Raises:
            ConfigError: it is no multiple of what the training graph takes.
        """
        taken = job.manifest.batch
        if self.batch is None:
            return max(BATCH // taken, 1) * taken
        if self.batch % taken:
            raise ConfigError(
                f"the training graph takes {taken} samples at a time, so --batch {self.batch} "
                f"cannot be made of it; give a multiple of {taken}"
            )
        return self.batch

    def steps_for(self, rows: int, batch: int) -> int:
        """Return how many steps there are."""
        if self.epochs is not None:
            return max(math.ceil(self.epochs * rows / batch), 1)
        return STEPS if self.steps is None else self.steps

    def eval_every_for(self, steps: int) -> int:
        """Return how many steps there are from one evaluation to the next."""
        return self.eval_every or math.ceil(steps / _EVALUATIONS)
