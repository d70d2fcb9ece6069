"""Training jobs of a model: export one for a trainer, and import what came of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from ptq.config import PLACE_ALL, QuantizeConfig
from ptq.data import Dataset, read_labels, select_labels
from ptq.data.feeds import Feed
from ptq.embedded import PinnedPlacement
from ptq.errors import ConfigError
from ptq.finetuning import alike, split
from ptq.graph.load import model_files
from ptq.options import RunOptions
from ptq.pipeline import Data, Result, begin, quantize
from ptq.places import require_text
from ptq.ranging import Part
from ptq.refining import Refined
from ptq.train.job import Job
from ptq.train.manifest import LABELS, MANIFEST, MODEL, STATISTICS, Manifest
from ptq.train.samples import held_out_data


def export_job(
    model: str | os.PathLike[str],
    calibration: Data,
    folder: str | os.PathLike[str],
    config: QuantizeConfig,
    *,
    labels: Path | None = None,
    options: RunOptions | None = None,
) -> Manifest:
    """Write a training job: a folder with the quantized network as graphs that a trainer runs.

    Args:
        model: the file of a float32 model.
        calibration: real inputs, by which scales are found that training starts from; some are
            kept out to judge the result.
        folder: the job; it appears when it is complete.
        config: how to quantize; ``fine_tune`` is the training method.
        labels: the right class of every calibration row, to train on in place of what the float
            model puts out.
        options: samples, images, threads, and whether an old job may be replaced.

    Raises:
        ConfigError: there is no training method, or something that a job cannot have.
        UnsupportedError: nothing in the model can be trained.
        PtqError: as `ptq.quantize`.
    """
    options, folder = options or RunOptions(), Path(folder)
    require_text([model, folder, calibration, labels])
    config = msgspec.structs.replace(config, place=(PLACE_ALL,), protect=0.0)
    _require_simple(config)
    work = begin(model, calibration, config, options=options)
    data = work.inputs.calibration
    assert data is not None, "a job is made from data"
    classes = None if labels is None else select_labels(read_labels(labels), data)
    with _new_folder(folder, force=options.force) as place:
        scratch = place / "scratch"
        scratch.mkdir()
        version = work.write(scratch / MODEL, "qdq")
        shutil.rmtree(scratch)
        _copy_model(work.source.path, place)
        work.observed().save(place / STATISTICS)
        train_on, judge_on = split(alike(data))
        with work.stages.stage("export"):
            return work.trainable(version, Refined()).export(
                place,
                Part(data, train_on),
                _judged(data, list(judge_on), classes),
                labels=labels is not None,
                keep_float=tuple(sorted(version.keep_float)),
                timed=True,
            )


def import_job(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: RunOptions | None = None,
) -> Result:
    """Make an integer model of a trained job, unless the one without training is better.

    Args:
        folder: the job, with what a trainer wrote.
        output: the integer model.
        options: other data to measure accuracy on, reports, threads; without, the samples that the
            job kept out.

    Raises:
        TrainingError: the job was not trained, or is damaged.
        PtqError: as `ptq.quantize`.
    """
    options, folder = options or RunOptions(), Path(folder)
    require_text([folder, output])
    job = Job.open(folder)
    manifest = job.manifest
    config = msgspec.convert(manifest.config, QuantizeConfig)
    options = replace(
        options,
        output=Path(output),
        evaluation=options.evaluation or held_out_data(job)[0],
        statistics=job.path(STATISTICS),
        trained=folder,
        placement=PinnedPlacement(keep_float=manifest.keep_float),
    )
    return quantize(job.path(MODEL), None, config, options=options)


def _require_simple(config: QuantizeConfig) -> None:
    """Refuse what would have to be done again, and alike, when the job is imported."""
    if not config.fine_tune:
        raise ConfigError("a training job needs a method; give --method, as in --method pact")
    config.training_method()
    others = [o for o in config.refinements if not o.startswith("--fine-tune")]
    wrong = [*config.transforms, *others]
    if config.phases != "direct":
        wrong.append(f"--phases {config.phases}")
    if config.solver().runs_network:
        wrong.append(f"--calib {config.calib}")
    if config.scheme != "static":
        wrong.append(f"--scheme {config.scheme}")
    if wrong:
        raise ConfigError(
            f"{wrong[0]} is not for training jobs, which start from plain ranges; leave it out, or "
            "use ptq quantize --fine-tune"
        )


def _judged(data: Dataset, positions: list[int], classes: np.ndarray | None) -> list[Feed]:
    """Return the samples to judge on, with their classes if there are any."""
    feeds = list(Part(data, positions))
    if classes is None:
        return feeds
    rows = data.rows
    return [
        {**feed, LABELS: classes[i * rows : (i + 1) * rows]}
        for i, feed in zip(sorted(positions), feeds, strict=True)
    ]


def _copy_model(path: Path, folder: Path) -> None:
    """Copy the float model, with its external data under the names it knows."""
    first, *rest = model_files(path)
    shutil.copyfile(first, folder / MODEL)
    for file in rest:
        place = folder / file.relative_to(path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


@contextmanager
def _new_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """Yield a folder that takes a place when the block succeeds, and is gone if it does not.

    Raises:
        ConfigError: there is something already that may not be replaced.
    """
    if folder.exists() or folder.is_symlink():
        is_job = folder.is_dir() and not folder.is_symlink() and (folder / MANIFEST).is_file()
        empty = folder.is_dir() and not any(folder.iterdir())
        if not (empty or (is_job and force)):
            remedy = "give --force to replace the job" if is_job else "choose another place with -o"
            raise ConfigError(f"'{folder}' exists; {remedy}")
    try:
        made = Path(tempfile.mkdtemp(prefix=".ptq-", dir=folder.parent))
    except OSError as error:
        raise ConfigError(
            f"cannot write to '{folder.parent}': {error.strerror}; choose another place with -o"
        ) from error
    try:
        yield made
        if folder.exists():
            shutil.rmtree(folder)
        made.chmod(0o755)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
