"""The built-in trainer: onnxruntime runs the training graph, numpy changes the parameters.

The same job, data, options, seed and threads give the same parameters to the bit, and a run that
was stopped and goes on gives what it would have given: the order of the samples in a pass through
them depends on the seed and the number of the pass alone, so that the number of steps done says
where training is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import ConfigError, TrainingError
from ptq.progress import Progress, Stages
from ptq.runtime.session import Session, open_session, run
from ptq.train import manifest as contract
from ptq.train.checkpoint import About, Checkpoint
from ptq.train.job import Evaluation, Job, Result, Stopped
from ptq.train.judging import LOSS, Judge
from ptq.train.optimizers import OPTIMIZERS, SCHEDULES, Optimizer
from ptq.train.samples import Samples
from ptq.train.train_options import TrainOptions

__all__ = ["Outcome", "TrainOptions", "row_order", "train"]

_STAGE = "train"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of training.

    Attributes:
        parameters: the best there were, the first ones included; float32, by name.
        result: how it went.
    """

    parameters: Mapping[str, np.ndarray]
    result: Result


def train(job: Job, data: Samples, held: Samples, options: TrainOptions, stages: Stages) -> Outcome:
    """Train the parameters of a job.

    Nothing but checkpoints is written; `Job.write` writes the outcome.

    Args:
        job: what is trained.
        data: samples to train on.
        held: samples to judge on.
        options: how.
        stages: told of every step, with the loss.

    Raises:
        ConfigError: an option does not fit the job or the checkpoint.
        TrainingError: the graphs do not fit the manifest, or the loss is no number at the start.
        DataError: onnxruntime fails.
    """
    loop = _Loop(job, data, held, options, stages)
    path = job.path(contract.CHECKPOINT)
    if options.resume and path.is_file():
        loop.resume(Checkpoint.load(path))
    # what is no number is looked for, and told in words
    with stages.stage(_STAGE, loop.steps), np.errstate(over="ignore", invalid="ignore"):
        return loop.run()


def row_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """Return the order of the rows in a pass through them, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


@dataclass(slots=True)
class _State:
    """What changes while training."""

    parameters: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    optimizer: Optimizer
    evaluations: list[Evaluation] = field(default_factory=list)
    without_gain: int = 0
    stopped: Stopped = "done"
    notices: list[str] = field(default_factory=list)

    @property
    def best_evaluation(self) -> Evaluation:
        return min(self.evaluations, key=lambda e: e.loss)


class _Loop:
    """One training run."""

    def __init__(
        self, job: Job, data: Samples, held: Samples, options: TrainOptions, stages: Stages
    ) -> None:
        self.job, self.data = job, data
        self.options, self.stages = options, stages
        self.manifest = job.manifest
        self.batch = options.batch_for(job)
        self.steps = options.steps_for(data.rows, self.batch)
        self.eval_every = options.eval_every_for(self.steps)
        self.checkpoint_every = options.checkpoint_every or self.eval_every
        self.trained = [a for a in self.manifest.parameters if a.gradient is not None]
        self.states = [a for a in self.manifest.parameters if a.becomes is not None]
        if not self.trained and not self.states:
            raise TrainingError(f"'{job.folder}': there is nothing to train in the job")
        if self.manifest.labels is not None and data.labels is None:
            raise ConfigError("the job trains on labels; give --labels")
        self.outputs = [
            LOSS,
            *(a.gradient for a in self.trained if a.gradient is not None),
            *(a.becomes for a in self.states if a.becomes is not None),
        ]
        self.session = self._session()
        self.judge = Judge(job, held, options.threads)
        first = job.parameters()
        optimizer = OPTIMIZERS[options.optimizer](self.manifest.parameters)
        self.state = _State(first, _copied(first), optimizer)

    @property
    def settings(self) -> dict[str, str]:
        """All that the outcome depends on."""
        o = self.options
        labels = "none" if self.data.labels is None else "given"
        return {
            "the job": self.job.digest[:12],
            "the data": self.data.digest[:12],
            "--labels": labels,
            "--batch": str(self.batch),
            "--steps": str(self.steps),
            "--lr": f"{o.lr!r}",
            "--schedule": o.schedule,
            "--optimizer": o.optimizer,
            "--seed": str(o.seed),
            "--eval-every": str(self.eval_every),
            "--patience": str(o.patience),
            "--threads": str(o.threads),  # sums are split among them
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        path = self.job.path(contract.CHECKPOINT)
        checkpoint.require(self.settings, path)
        about, array = checkpoint.about, self.manifest.parameters
        self.state = _State(
            self.job.checked(checkpoint.parameters, str(path)),
            self.job.checked(checkpoint.best, str(path)),
            OPTIMIZERS[self.options.optimizer](array, checkpoint.moments, about.steps),
            list(about.evaluations),
            about.without_gain,
        )
        self.state.notices.append(f"went on from a checkpoint after {about.steps} steps")

    def run(self) -> Outcome:
        """Train to the end."""
        state, optimizer = self.state, self.state.optimizer
        if not state.evaluations and not self._evaluate():
            raise TrainingError(
                "the loss on the held-out feeds is no finite number before training; check the "
                "model and the data"
            )
        while optimizer.steps < self.steps and not self._patience_is_over():
            loss = self._step(optimizer.steps)
            if loss is None:
                state.stopped = "not-finite"
                break
            done = optimizer.steps
            if (done % self.eval_every == 0 or done == self.steps) and not self._evaluate():
                state.stopped = "not-finite"
                self._say_not_finite("the loss on the held-out feeds", done)
                break
            if done % self.checkpoint_every == 0 and done < self.steps:
                self._checkpoint().save(self.job.path(contract.CHECKPOINT))
            self.stages.on_progress(Progress(_STAGE, done, self.steps, self._text(loss)))
        else:
            if optimizer.steps < self.steps:
                state.stopped = "no-gain"
        return Outcome(state.best, self._result())

    def _step(self, step: int) -> float | None:
        """Do one step and return its loss; ``None``, and change nothing, if it is no number."""
        state, taken = self.state, self.manifest.batch
        pieces = self.batch // taken
        rows = self._rows(step)
        losses: list[float] = []
        total: list[np.ndarray] = []
        states = {a.name: state.parameters[a.name] for a in self.states}
        for piece in range(pieces):
            part = np.sort(rows[piece * taken : (piece + 1) * taken])
            feed = {
                **self.data.feed(part),
                **self._labels(part),
                **state.parameters,
                **states,
            }
            found = run(self.session, feed, self.outputs, where=f"step {step + 1}")
            losses.append(float(found[0]))
            gradients = found[1 : 1 + len(self.trained)]
            became = found[1 + len(self.trained) :]
            states = {a.name: v for a, v in zip(self.states, became, strict=True)}
            if not total:
                # what onnxruntime returned is its own where there is more to add
                total = [np.array(g) for g in gradients] if pieces > 1 else gradients
            else:
                for whole, more in zip(total, gradients, strict=True):
                    whole += more
        by_name = {a.name: g for a, g in zip(self.trained, total, strict=True)}
        if not self._finite(sum(losses), {**by_name, **states}, step):
            return None
        if pieces > 1:
            for gradient in total:
                gradient *= np.float32(1 / pieces)
        schedule = SCHEDULES[self.options.schedule]
        rate = self.options.lr * schedule(step, self.steps)
        state.optimizer.step(state.parameters, by_name, rate)
        for name, value in states.items():
            state.parameters[name] = np.array(value, np.float32)
        return sum(losses) / pieces

    def _rows(self, step: int) -> np.ndarray:
        """Return which rows a step takes: passes through the samples follow one another."""
        first, rows = step * self.batch, self.data.rows
        found: list[np.ndarray] = []
        while (have := sum(map(len, found))) < self.batch:
            epoch, at = divmod(first + have, rows)
            found.append(row_order(self.options.seed, epoch, rows)[at:][: self.batch - have])
        return np.concatenate(found)

    def _labels(self, rows: np.ndarray) -> Feed:
        name, labels = self.manifest.labels, self.data.labels
        return {} if name is None or labels is None else {name: labels[rows]}

    def _finite(self, loss: float, arrays: Mapping[str, np.ndarray], step: int) -> bool:
        wrong = next((n for n, a in arrays.items() if not np.isfinite(a.sum())), None)
        if math.isfinite(loss) and wrong is None:
            return True
        what = f"the gradient of '{wrong}'" if math.isfinite(loss) else "the loss"
        self._say_not_finite(what, step + 1)
        return False

    def _say_not_finite(self, what: str, step: int) -> None:
        self.state.notices.append(
            f"{what} is no finite number at step {step}, so training ended there; lower --lr"
        )

    def _evaluate(self) -> bool:
        """Judge the parameters, and keep them if they are the best; false if that fails."""
        state = self.state
        evaluation = self.judge.judge(state.parameters, state.optimizer.steps)
        if evaluation is None:
            return False
        better = not state.evaluations or evaluation.loss < state.best_evaluation.loss
        state.evaluations.append(evaluation)
        state.without_gain = 0 if better else state.without_gain + 1
        if better:
            state.best = _copied(state.parameters)
        return True

    def _patience_is_over(self) -> bool:
        return 0 < self.options.patience <= self.state.without_gain

    def _checkpoint(self) -> Checkpoint:
        state = self.state
        about = About(
            settings=self.settings,
            steps=state.optimizer.steps,
            evaluations=tuple(state.evaluations),
            without_gain=state.without_gain,
        )
        return Checkpoint(about, state.parameters, state.best, state.optimizer.moments)

    def _result(self) -> Result:
        state = self.state
        return Result(
            manifest=self.job.digest,
            trainer="ptq",
            steps=state.optimizer.steps,
            stopped=state.stopped,
            before=state.evaluations[0],
            best=state.best_evaluation,
            evaluations=tuple(state.evaluations),
            notices=tuple(state.notices),
        )

    def _text(self, loss: float) -> str:
        last = self.state.evaluations[-1]
        text = f"loss {loss:.4g}, held out {last.loss:.4g}"
        return text if last.top1 is None else f"{text}, top-1 {last.top1:.2%}"

    def _session(self) -> Session:
        path = self.job.path(contract.TRAIN)
        session = open_session(path, threads=self.options.threads)
        have = {value.name for value in session.get_inputs()}
        wanted = {a.name for a in (*self.manifest.inputs, *self.manifest.targets)}
        wanted |= {a.name for a in self.manifest.parameters}
        wanted |= {self.manifest.labels} - {None}  # type: ignore[arg-type]
        outputs = {value.name for value in session.get_outputs()}
        differing = sorted(have ^ wanted) or sorted({*self.outputs} - outputs)
        if differing:
            raise TrainingError(
                f"'{path}' and the manifest do not agree about '{differing[0]}'; export the job "
                "anew"
            )
        return session


def _copied(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in parameters.items()}
