"""`ptq qat`: train what post-training quantization cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptq.cli import options as shared
from ptq.cli.progress import INTERRUPTED, progress_bars
from ptq.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from ptq.train.trainer import TrainOptions

_FOLDER = click.Path(path_type=Path, file_okay=False)

#: Options of the built-in trainer, as arguments of `TrainOptions`.
_OWN = (
    "epochs", "steps", "batch", "lr", "schedule", "optimizer", "eval_every", "patience",
    "checkpoint_every", "resume",
)  # fmt: skip


@click.group("qat")
def command() -> None:
    """Fine-tune a quantized network as a job that this or another trainer runs."""


@command.command("run")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--data",
    metavar="DATA",
    required=True,
    help="Real inputs to train on, in any form that --calib-data of `ptq quantize` takes. They "
    "need no labels: the float model says what to aim at.",
)
@click.option("--samples", type=click.IntRange(min=1), help="How many samples of it to use.  [all]")
@shared.IMAGES
@click.option(
    "--labels",
    type=shared.FILE,
    help="The class of each row, for a job that trains on labels: .npy, .npz, .json, or one a "
    "line.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    help="How many times to go through the samples, in place of --steps.",
)
@click.option("--steps", type=click.IntRange(min=1), help="How many steps to train.  [300]")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Samples for each step, a multiple of what the graph takes.  [about 32]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="The highest learning rate.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant"]),
    default="cosine",
    show_default=True,
    help="How the learning rate goes: up for a twentieth of the steps and down as a cosine, or "
    "not.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "sgd"]),
    default="adam",
    show_default=True,
    help="How parameters follow their gradients; sgd is with momentum 0.9.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the order of the samples, and of random data.",
)
@click.option(
    "--eval-every",
    type=click.IntRange(min=1),
    help="Steps from one evaluation on held-out data to the next.  [a tenth of all]",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Evaluations without gain after which training ends; 0 for never.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    help="Steps from one checkpoint to the next.  [as --eval-every]",
)
@click.option(
    "--resume/--restart",
    default=True,
    help="Whether to go on from the checkpoint of a run that was stopped.  [resume]",
)
@click.option(
    "--trainer",
    metavar="TRAINER",
    help="Let another trainer do it: a command in which {dir} stands for DIR, "
    "package.module:function, or the name of one that is installed. Options of the built-in "
    "trainer are not passed on.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a command that trains longer.",
)
@shared.threads("train with")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(folder: Path, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Train the job in DIR, which `ptq qat export` wrote.

    The best parameters on the held-out data, those at the start included, go to params.out.npz in
    DIR, and how it went to result.json. A run that was stopped goes on where it was when the same
    command is given again, and ends with the same bytes.
    """
    from ptq.progress import Stages
    from ptq.train.external import find_trainer
    from ptq.train.job import Job
    from ptq.train.manifest import CHECKPOINT
    from ptq.train.result_text import result_text
    from ptq.train.running import TrainData, run_externally, run_job

    options = _options(given)
    trainer = None if given["trainer"] is None else find_trainer(given["trainer"])
    if trainer is None and given["timeout"] is not None:
        raise ConfigError("--timeout is for --trainer; the built-in one has --steps")
    data = TrainData(
        source=given["data"],
        samples=given["samples"],
        labels=given["labels"],
        images=shared.images_from(given["image_flags"], given["image_config"]),
    )
    job = Job.open(folder)
    try:
        with progress_bars() as on_progress:
            stages = Stages(on_progress)
            if trainer is None:
                result = run_job(job, data, options, stages)
            else:
                result = run_externally(job, data, trainer, options, stages, given["timeout"])
    except KeyboardInterrupt:
        kept = trainer is None and job.path(CHECKPOINT).is_file()
        remedy = "the same command goes on where it was" if kept else "nothing was written"
        click.echo(f"interrupted; {remedy}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    for notice in result.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(shared.json_of(result) if as_json else result_text(result))
    if result.best is None or result.stopped == "not-finite":
        raise TrainingError(
            f"training came to no good end; the best there was is in '{folder}', lower --lr"
        )


def _options(given: dict[str, Any]) -> TrainOptions:
    from click.core import ParameterSource

    from ptq.train.trainer import TrainOptions

    context = click.get_current_context()
    asked = [n for n in _OWN if context.get_parameter_source(n) != ParameterSource.DEFAULT]
    if given["trainer"] is not None and asked:
        raise ConfigError(
            f"--{asked[0].replace('_', '-')} is for the built-in trainer; leave it out, or "
            "--trainer"
        )
    names = (*_OWN, "seed", "threads")
    return TrainOptions(**{name: given[name] for name in names})
