"""`ptq check`: an exit code that holds accuracy, size and speed in CI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptq.cli import options as shared
from ptq.cli import recipes
from ptq.cli.limits import LIMIT
from ptq.cli.progress import progress_bars
from ptq.errors import ThresholdError

if TYPE_CHECKING:
    from ptq.checking import CheckOptions


@click.command(
    "check",
    cls=recipes.RecipeCommand,
    epilog="Exit codes: 0 all holds, 3 a threshold or the baseline was missed (the table and all "
    "files are written first), 2 wrong usage or configuration, 1 could not be run.",
)
@click.argument("reference", metavar="REF.onnx", type=shared.FILE)
@click.argument("quantized", metavar="QUANT.onnx", type=shared.FILE)
@recipes.OPTIONS
@click.option(
    "--data",
    metavar="DATA",
    required=True,
    help="Real inputs that calibration has not seen, in any form that --calib-data of `ptq "
    "quantize` takes.",
)
@click.option(
    "--labels",
    type=shared.FILE,
    help="The right answer of each row, a class or a text: .npy, .npz, .json, or one a line.",
)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME[:OPTION=VALUE,...]",
    multiple=True,
    help="The task figure that --max-drop holds, or package.module:function; several times for "
    "several.  [top-1 of class labels, character error rate of texts, else agreement]",
)
@click.option(
    "--max-drop",
    type=LIMIT,
    metavar="0.5%",
    help="How much worse than the float model the task figure may be: of a share, points; of "
    "others, a number, or a percentage of the float model's figure.",
)
@click.option("--min-sqnr", metavar="DB", type=float, help="Least SQNR over all outputs, in dB.")
@click.option("--min-cosine", metavar="X", type=float, help="Least cosine similarity.")
@click.option(
    "--min-agreement", type=LIMIT, metavar="99%", help="Least share of equal top classes."
)
@click.option(
    "--max-size-ratio",
    type=LIMIT,
    metavar="X",
    help="Largest size, as a part of the float model's: 0.3 or 30%",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Least speed, in times that of the float model.",
)
@click.option(
    "--min-integer",
    type=LIMIT,
    metavar="90%",
    help="Least share of integer kernels, of those that onnxruntime runs for the file.",
)
@click.option("--samples", type=click.IntRange(min=1), help="How many samples to use.  [all]")
@click.option(
    "--baseline", type=shared.FILE, help="Figures of an earlier run, which may not get worse."
)
@click.option(
    "--update-baseline",
    is_flag=True,
    help="Write this run's figures into --baseline, unless a threshold is missed.",
)
@click.option(
    "--name", default="", help="What the model is called in the baseline.  [its file name]"
)
@click.option(
    "--noise",
    type=click.Choice(["fail", "pass"]),
    default="fail",
    show_default=True,
    help="Where the noise of the samples decides: count a figure as measured, or fail only what is "
    "certain.",
)
@click.option(
    "--confidence",
    type=LIMIT,
    metavar="95%",
    default="95%",
    show_default=True,
    help="Of the intervals.",
)
@click.option("--speed", is_flag=True, help="Measure speed even without --min-speedup.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long to time both models, if at all.",
)
@shared.threads("run the samples with; speed is measured with one")
@shared.IMAGES
@click.option("--junit", type=shared.FILE, help="Write JUnit XML here, as CI systems show it.")
@click.option("--json", "report", type=shared.FILE, help="Write everything measured here.")
@click.option(
    "--markdown", type=shared.FILE, help="Write a table for a pull request or job summary here."
)
def command(reference: Path, quantized: Path, *, data: str, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Hold the accuracy, size and speed of QUANT.onnx against the float model REF.onnx.

    Every figure is measured on DATA, with its confidence interval, and held against the thresholds
    given and against a baseline. What is missed names the layers at fault. Files that exist are
    replaced, but never a model or the data.
    """
    from ptq.checking import check
    from ptq.report.check_text import check_text

    with progress_bars() as on_progress:
        options = replace(options_of(given), on_progress=on_progress)
        found = check(reference, quantized, data, options)
    for notice in found.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(check_text(found))
    if not found.passed:
        raise ThresholdError(found.verdict)
    click.echo(f"\n{found.verdict}")


def options_of(given: Mapping[str, Any]) -> CheckOptions:
    """Return the options as they were given, but for the models and the data."""
    from ptq.checking import CheckOptions

    flags, file = given["image_flags"], given["image_config"]
    arguments = [argument for flag in flags for argument in ("--image", flag)]
    if file is not None:
        arguments += ["--image-config", str(file)]
    own = ("reference", "quantized", "data", "image_flags", "image_config")
    return CheckOptions(
        images=shared.images_from(flags, file),
        image_arguments=tuple(arguments),
        **{n: v for n, v in given.items() if n not in own},
    )
