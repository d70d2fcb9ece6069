"""Trainers from elsewhere: a Python function, an entry point, or a command.

A command is run without a shell. What it prints as JSON lines ``{"step": 3, "loss": 0.1}`` becomes
progress; the end of all else is shown if it fails.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ptq.data.function import FUNCTION, error_in_short, find_function
from ptq.errors import ConfigError, PtqError, TrainingError
from ptq.progress import Progress, Stages
from ptq.train import manifest as contract
from ptq.train.data_folder import DATA, write_index
from ptq.train.job import Job, Result, Trained, read_trained
from ptq.train.processes import ended_after, started
from ptq.train.sample_rows import Samples

#: The entry points of trainers of other distributions.
GROUP = "ptq.qat_trainers"

#: What stands for the folder of the job in a command.
_PLACE = "{dir}"

#: Lines of what a command printed that are shown if it fails.
_SHOWN = 20

_STAGE = "train"

#: A trainer in Python: a job in, all parameters out.
TrainFunction = Callable[[Job], Mapping[str, np.ndarray]]


class _Line(msgspec.Struct, frozen=True):
    """A line of progress."""

    step: int
    loss: float | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A trainer in a process of its own.

    Attributes:
        arguments: the program and its arguments; ``{dir}`` is the folder of the job.
    """

    arguments: tuple[str, ...]

    def run(self, job: Job, stages: Stages, timeout: float | None = None) -> None:
        """Run it to its end.

        Args:
            job: what it trains.
            stages: told of its steps.
            timeout: seconds after which it is ended.

        Raises:
            ConfigError: there is no such program.
            TrainingError: it fails, or takes too long.
        """
        folder = str(job.folder.resolve())
        arguments = [argument.replace(_PLACE, folder) for argument in self.arguments]
        shown: deque[str] = deque(maxlen=_SHOWN)
        with (
            stages.stage(_STAGE),
            started(arguments) as process,
            ended_after(process, timeout) as over,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                progress = _progress(line)
                if progress is not None:
                    stages.on_progress(progress)
                elif line.strip():
                    shown.append(line.rstrip())
            code = process.wait()
        told = "".join(f"\n  {line}" for line in shown) or "\n  (it printed nothing)"
        name = Path(arguments[0]).name
        if over.is_set():
            raise TrainingError(
                f"the trainer '{name}' was ended after {timeout:g} s; give a longer --timeout. It "
                f"printed:{told}"
            )
        if code:
            raise TrainingError(f"the trainer '{name}' failed with exit code {code}:{told}")


@dataclass(frozen=True, slots=True)
class Function:
    """A trainer in this process.

    Attributes:
        name: what the user called it.
        call: the function.
    """

    name: str
    call: TrainFunction

    def run(self, job: Job, stages: Stages, timeout: float | None = None) -> None:
        """Call it, and write what it returns.

        Raises:
            ConfigError: a time limit is given.
            TrainingError: it raises, or does not return the parameters of the job.
        """
        if timeout is not None:
            raise ConfigError("--timeout is for trainers that are commands; leave it out")
        with stages.stage(_STAGE):
            try:
                found: object = self.call(job)
            except PtqError:
                raise
            except Exception as error:
                raise TrainingError(
                    f"the trainer '{self.name}' raised {error_in_short(error)}"
                ) from error
        if not isinstance(found, Mapping):
            raise TrainingError(
                f"the trainer '{self.name}' returned {type(found).__name__}; return arrays by name"
            )
        arrays = {str(name): np.asarray(array) for name, array in found.items()}
        job.write(arrays, Result(manifest=job.digest, trainer=self.name))


Trainer = Command | Function


def find_trainer(text: str) -> Trainer:
    """Return the trainer that a text names.

    Args:
        text: the name of an entry point, ``package.module:function``, or a command in which
            ``{dir}`` stands for the folder of the job.

    Raises:
        ConfigError: it is none of these, or does not load.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if text in known:
        try:
            call: Any = known[text].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the trainer '{text}' does not load ({error}); reinstall its distribution"
            ) from error
        return Function(text, call)
    if FUNCTION.fullmatch(text):
        return Function(text, find_function(text, "a function that trains a job"))
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--trainer: cannot read '{text}': {error}") from error
    if not any(_PLACE in argument for argument in arguments[1:]):
        names = f", or one of: {', '.join(sorted(known))}" if known else ""
        raise ConfigError(
            f"--trainer: '{text}' is no trainer; give package.module:function, a command such as "
            f"'python train.py {_PLACE}'{names}"
        )
    return Command(tuple(arguments))


def train_externally(
    job: Job, samples: Samples, trainer: Trainer, stages: Stages, timeout: float | None = None
) -> Trained:
    """Let a trainer train a job whose samples are in its folder, and return what it wrote.

    Args:
        job: the job.
        samples: in the folder that `data_folder` made.
        trainer: the trainer.
        stages: told of its steps.
        timeout: seconds that a command may take.

    Raises:
        ConfigError: there is no such program.
        TrainingError: it fails, or does not write what the contract asks for.
    """
    write_index(job.path(DATA), samples)
    for name in (contract.RESULT, contract.TRAINED):
        job.path(name).unlink(missing_ok=True)  # what is there afterwards is new
    trainer.run(job, stages, timeout)
    return read_trained(job)


def _progress(line: str) -> Progress | None:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    text = "" if found.loss is None else f"loss {found.loss:.4g}"
    return Progress(_STAGE, found.step, found.steps, text)
