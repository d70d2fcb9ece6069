"""A training job on disk: opened and checked, and what came of it written and read.

The contract is in `ptq.train.manifest`; docs/training.md describes it for authors of trainers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from ptq.errors import ConfigError, TrainingError
from ptq.files import sha256_of, write_atomically
from ptq.train import manifest as contract
from ptq.train.arrays import packed, read_arrays
from ptq.train.manifest import Manifest, TrainedArray

#: Without these nothing can be trained.
_NEEDED = (
    contract.TEACHER, contract.TRAIN, contract.EVAL, contract.PARAMETERS, contract.HELD_OUT,
)  # fmt: skip

#: What training writes: it is not part of the job, though it may have been there at its export.
_WRITTEN = frozenset({contract.TRAINED, contract.RESULT, contract.CHECKPOINT})

_S = TypeVar("_S", bound=msgspec.Struct)


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How good the parameters are on the held-out feeds.

    Attributes:
        step: after how many steps; 0 is the start.
        loss: of the kind that is trained.
        top1: share of the labelled rows whose class is right, if there are labels.
    """

    step: int
    loss: float
    top1: float | None = None


#: Why training ended: all steps were done, nothing was gained for a while, or the loss or a
#: gradient was no number.
Stopped = Literal["done", "no-gain", "not-finite"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer says about what it wrote; only ``manifest`` has to be there.

    Attributes:
        manifest: SHA-256 of ``manifest.json``, in hexadecimal.
        trainer: what trained.
        steps: how many steps were done.
        stopped: why it ended.
        before: how good the first parameters are.
        best: how good the parameters are that were written.
        evaluations: all there were, in order.
        notices: what a user should know, a line each.
    """

    manifest: str
    trainer: str = ""
    steps: int = 0
    stopped: Stopped = "done"
    before: Evaluation | None = None
    best: Evaluation | None = None
    evaluations: tuple[Evaluation, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a trainer wrote, checked.

    Attributes:
        parameters: float32, by name: all of the job, in its order.
        result: what the trainer says about it.
    """

    parameters: Mapping[str, np.ndarray]
    result: Result


@dataclass(frozen=True, slots=True)
class Job:
    """A training job that is whole.

    Attributes:
        folder: where it is.
        manifest: what is to be trained, and how.
        digest: SHA-256 of ``manifest.json``, in hexadecimal.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, folder: str | Path) -> Job:
        """Return the job in a folder.

        Raises:
            ConfigError: there is no job in it.
            TrainingError: a file is missing or was changed, or does not fit the manifest.
        """
        folder = Path(folder)
        path = folder / contract.MANIFEST
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"there is no training job in '{folder}' ({contract.MANIFEST}: {error.strerror}); "
                "make one with: ptq qat export"
            ) from error
        _require_version(content, path)
        manifest = _decoded(content, Manifest, path)
        job = cls(folder, manifest, hashlib.sha256(content).hexdigest())
        job._require_files()
        job.parameters()
        return job

    def path(self, name: str) -> Path:
        """Return where a file of the job is."""
        return self.folder / name

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the first values of the parameters, by name: new arrays, contiguous float32.

        Raises:
            TrainingError: they are not those of the manifest.
        """
        return self.checked(read_arrays(self.path(contract.PARAMETERS)), contract.PARAMETERS)

    def checked(self, given: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
        """Return parameters in the order of the manifest.

        Args:
            given: arrays by name.
            where: where they come from, for errors.

        Raises:
            TrainingError: one is missing, not of the job, of another shape or type, not finite, or
                not positive where it has to be.
        """
        wanted = {array.name for array in self.manifest.parameters}
        missing, more = sorted(wanted - set(given)), sorted(set(given) - wanted)
        if missing:
            raise TrainingError(f"{where}: parameter '{missing[0]}' is missing; write all of them")
        if more:
            raise TrainingError(
                f"{where}: '{more[0]}' is no parameter of the job; write those of "
                f"{contract.PARAMETERS}"
            )
        return {a.name: _checked(given[a.name], a, where) for a in self.manifest.parameters}

    def write(self, parameters: Mapping[str, np.ndarray], result: Result) -> None:
        """Write what came of training: ``params.out.npz``, then ``result.json``.

        There is then nothing to go on from: the checkpoint goes.

        Raises:
            TrainingError: the parameters are not those of the job.
            ConfigError: the folder cannot be written to.
        """
        found = self.checked(parameters, "the trained parameters")
        self.path(contract.RESULT).unlink(missing_ok=True)  # it does not describe what comes
        write_atomically(self.path(contract.TRAINED), packed(found))
        text = msgspec.json.format(msgspec.json.encode(result), indent=2)
        write_atomically(self.path(contract.RESULT), text + b"\n")
        self.path(contract.CHECKPOINT).unlink(missing_ok=True)

    def _require_files(self) -> None:
        for name in _NEEDED:
            if name not in self.manifest.sha256:
                raise TrainingError(
                    f"{self.path(contract.MANIFEST)}: has no digest of {name}; export the job anew"
                )
        for name, digest in self.manifest.sha256.items():
            if name in _WRITTEN:
                continue
            path = self.path(name)
            try:
                found = sha256_of(path)
            except OSError as error:
                raise TrainingError(
                    f"'{path}' of the job cannot be read ({error.strerror}); export the job anew"
                ) from error
            if found != digest:
                raise TrainingError(
                    f"'{path}' is not what the manifest says (SHA-256); export the job anew"
                )


def read_trained(job: Job) -> Trained:
    """Return what a trainer wrote for a job.

    Raises:
        TrainingError: it wrote nothing, or not for this job, or parameters that do not fit it.
    """
    path = job.path(contract.RESULT)
    for wanted in (path, job.path(contract.TRAINED)):
        if not wanted.is_file():
            raise TrainingError(f"'{wanted}' is missing; train the job with: ptq qat run")
    result = _decoded(path.read_bytes(), Result, path)
    if result.manifest != job.digest:
        raise TrainingError(
            f"'{path}' belongs to another job: it gives {result.manifest[:12] or 'nothing'} as the "
            f"SHA-256 of {contract.MANIFEST}, which is {job.digest[:12]}; train the job anew"
        )
    given = read_arrays(job.path(contract.TRAINED))
    return Trained(job.checked(given, contract.TRAINED), result)


def _checked(given: np.ndarray, array: TrainedArray, where: str) -> np.ndarray:
    name = f"{where}: parameter '{array.name}'"
    if given.dtype != np.float32 or given.shape != array.shape:
        raise TrainingError(
            f"{name} is {given.dtype} of shape {given.shape}, not float32 of shape {array.shape}"
        )
    if not np.isfinite(given).all():
        raise TrainingError(f"{name} takes a NaN or infinite value; lower the learning rate")
    if array.positive and not (given > 0).all():
        raise TrainingError(f"{name} has to stay above 0, and has {given.min():g}")
    return np.array(given, np.float32, order="C")


def _require_version(content: bytes, path: Path) -> None:
    class Versioned(msgspec.Struct):
        version: int

    version = _decoded(content, Versioned, path).version
    if version != contract.VERSION:
        raise TrainingError(
            f"'{path}' is of version {version}, and this ptq knows version {contract.VERSION}; "
            "export the job anew"
        )


def _decoded(content: bytes, of: type[_S], path: Path) -> _S:
    try:
        return msgspec.json.decode(content, type=of)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainingError(f"'{path}' is damaged: {error}") from error
