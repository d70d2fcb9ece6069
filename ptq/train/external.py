"""Trainers from elsewhere: a Python function, an entry point, or a command.

A command is run without a shell. What it prints as JSON lines ``{"step": 3, "loss": 0.1}`` becomes
progress; the end of all else is shown if it fails.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from ptq.train.job import Job, Result, Trained, read_trained
from ptq.train.samples import Samples

#: The entry points of trainers of other distributions.
GROUP = "ptq.qat_trainers"

#: What stands for the folder of the job in a command.
_PLACE = "{dir}"

#: The folder with samples, in that of the job, and what says which file is what.
DATA, INDEX = "data", "index.json"

#: Lines of what a command printed that are shown if it fails.
_SHOWN = 20

#: Seconds that a command has to end by itself when it is told to.
_GRACE = 5.0

_STAGE = "train"

#: A trainer in Python: a job in, all parameters out.
TrainFunction = Callable[[Job], Mapping[str, np.ndarray]]


class DataIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What the files in the folder ``data`` of a job are.

    Attributes:
        rows: how many samples there are.
        inputs: the ``.npy`` file of each input, by name: ``(rows, *one row)``, or, if it is among
            ``shared``, what all rows share.
        targets: likewise of each target.
        shared: names of inputs that all rows share.
        labels: the file of the labels, int64 of shape ``(rows,)``.
    """

    rows: int
    inputs: dict[str, str]
    targets: dict[str, str]
    shared: tuple[str, ...] = ()
    labels: str | None = None


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
            _started(arguments) as process,
            _ended_after(process, timeout) as over,
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
        samples: written by `data_folder`.
        trainer: the trainer.
        stages: told of its steps.
        timeout: seconds that a command may take.

    Raises:
        ConfigError: there is no such program.
        TrainingError: it fails, or does not write what the contract asks for.
    """
    _write_index(job.path(DATA), samples)
    for name in (contract.RESULT, contract.TRAINED):
        job.path(name).unlink(missing_ok=True)  # what is there afterwards is new
    trainer.run(job, stages, timeout)
    return read_trained(job)


@contextmanager
def data_folder(job: Job) -> Iterator[Path]:
    """Yield an empty folder for samples in that of the job, which is gone afterwards.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = job.path(DATA)
    # from a run that was killed
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"cannot make '{folder}': {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_samples(job: Job) -> Samples:
    """Return the samples in the folder of a job, as a trainer in another process finds them.

    Raises:
        TrainingError: there are none.
    """
    folder = job.path(DATA)
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=DataIndex)
    except (OSError, msgspec.MsgspecError) as error:
        raise TrainingError(f"'{folder}' holds no samples ({error}); run: ptq qat run") from error

    def opened(name: str, file: str) -> np.ndarray:
        whole = name in index.shared or file == index.labels
        array: np.ndarray = np.load(folder / file, None if whole else "r", allow_pickle=False)
        return array

    inputs = {name: opened(name, file) for name, file in index.inputs.items()}
    targets = {name: opened(name, file) for name, file in index.targets.items()}
    labels = None if index.labels is None else opened("", index.labels)
    blocks = {
        name: 0 if name in index.shared else array.shape[1]
        for name, array in (*inputs.items(), *targets.items())
    }
    return Samples(inputs, targets, labels, index.rows, blocks)


def _write_index(folder: Path, samples: Samples) -> None:
    """Write what the files are, and those that are not there yet."""
    files = {
        name: f"{number}.npy" for number, name in enumerate((*samples.inputs, *samples.targets))
    }
    shared = tuple(name for name in samples.inputs if not samples.blocks[name])
    for name in shared:
        np.save(folder / files[name], samples.inputs[name], allow_pickle=False)
    labels = None
    if samples.labels is not None:
        labels = "labels.npy"
        np.save(folder / labels, samples.labels, allow_pickle=False)
    index = DataIndex(
        rows=samples.rows,
        inputs={name: files[name] for name in samples.inputs},
        targets={name: files[name] for name in samples.targets},
        shared=shared,
        labels=labels,
    )
    (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2))


@contextmanager
def _started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a session of its own, and end all of it if the block ends before it."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"--trainer: cannot run '{arguments[0]}': {error.strerror}; check the path"
        ) from error
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _end(process)


@contextmanager
def _ended_after(
    process: subprocess.Popen[str], seconds: float | None
) -> Iterator[threading.Event]:
    """Yield what tells whether time was over, and the program ended for it."""
    over = threading.Event()

    def end() -> None:
        over.set()
        _end(process)

    timer = threading.Timer(seconds or 0, end)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started: ask, and then do not ask."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    # also what the program left behind, which may hold the pipe open
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _progress(line: str) -> Progress | None:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    text = "" if found.loss is None else f"loss {found.loss:.4g}"
    return Progress(_STAGE, found.step, found.steps, text)
