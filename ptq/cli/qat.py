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


@command.command("export")
@shared.MODEL
@shared.DATA
@click.option(
    "-o", "--output", "folder", type=_FOLDER, required=True, metavar="DIR",
    help="The folder to make.",
)  # fmt: skip
@click.option(
    "--method",
    metavar="METHOD",
    default="pact",
    show_default=True,
    help="The training method, as `ptq methods` lists them, with options after a colon: "
    "lsq, qil, pact:decay=1e-3.",
)
@click.option(
    "--bits",
    type=shared.BITS,
    metavar="N|W4A4",
    default="W4A4",
    show_default=True,
    help="Width of the weights, and of what layers read: 8 to 2.",
)
@click.option(
    "--edge-bits",
    type=click.IntRange(2, 8),
    default=8,
    show_default=True,
    help="The least width of the first and last layers.",
)
@click.option(
    "--calib",
    default="mse",
    show_default=True,
    help="Range method that training starts from.",
)
@shared.LOSS
@click.option(
    "--labels",
    type=shared.FILE,
    help="The class of each calibration row, to train on in place of the float model's outputs: "
    ".npy, .npz, .json, or one a line.",
)
@shared.PLACEMENT
@shared.OBSERVER
@shared.FORCE
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(model: Path, *, folder: Path, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Write a training job of MODEL into DIR.

    The job has the quantized network as ordinary ONNX graphs, one of them with the loss and its
    gradients as outputs, so that onnxruntime can train it; `ptq qat run` does, and other trainers
    can. Of the data, one sample in eight is kept out to judge the result.
    """
    from ptq.config import FULL_BITS
    from ptq.options import RunOptions
    from ptq.qat import export_job
    from ptq.report.training import job_text

    bits, activation_bits = shared.widths_of(given["bits"])
    fields = ("edge_bits", "calib", "loss", "op_types", "exclude", "target", "sample_size")
    config = shared.config_from(
        bits=bits,
        activation_bits=activation_bits,
        fine_tune=given["method"],
        # what training is held against is what `ptq quantize` would make of as many bits
        weights_symmetric=bits == FULL_BITS,
        **{name: given[name] for name in (*fields, "ema_decay", "seed")},
    )
    with progress_bars() as on_progress:
        options = RunOptions(
            force=given["force"],
            samples=given["samples"],
            images=shared.images_from(given["image_flags"], given["image_config"]),
            threads=given["threads"],
            on_progress=on_progress,
        )
        manifest = export_job(
            model, given["calib_data"], folder, config, labels=given["labels"], options=options
        )
    click.echo(shared.json_of(manifest) if as_json else job_text(manifest, str(folder)))


@command.command("import")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("-o", "--output", type=shared.FILE, required=True, help="Where to write.")
@click.option(
    "--eval-data",
    metavar="DATA",
    help="Other inputs, to measure accuracy on: as --calib-data of `ptq quantize`.  [what the job "
    "kept out]",
)
@click.option("--labels", type=shared.FILE, help="The class of each evaluation row.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="How long to time the result beside the float model.",
)
@click.option("--json", type=shared.FILE, help="Write the whole report here.")
@click.option("--report", type=shared.FILE, metavar="PAGE.html|PAGE.md", help="Write it as a page.")
@shared.threads("run with")
@shared.FORCE
def import_(folder: Path, *, output: Path, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Make an integer model of the job in DIR, which was trained.

    Trained weights and ranges are taken over if the outputs are better with them on the samples
    that the job kept out; else the model is what quantizing without training gives, and it is said.
    """
    from ptq.options import RunOptions
    from ptq.qat import import_job
    from ptq.report.text import result_table

    with progress_bars() as on_progress:
        options = RunOptions(
            evaluation=given["eval_data"],
            labels=given["labels"],
            seconds=given["seconds"],
            report=given["json"],
            page=given["report"],
            threads=given["threads"],
            force=given["force"],
            on_progress=on_progress,
        )
        result = import_job(folder, output, options=options)
    for notice in result.report.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(result_table(result.report))


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
    default=3e-3,
    show_default=True,
    help="The highest learning rate, as a share of the size of each array.",
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
    from ptq.report.training import result_text
    from ptq.train.external import find_trainer
    from ptq.train.job import Job
    from ptq.train.manifest import CHECKPOINT
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
