"""`ptq bench`: how fast and how large models are, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ptq.cli import options as shared
from ptq.cli.progress import progress_bars


@click.command("bench")
@click.argument("models", metavar="MODEL...", type=shared.FILE, nargs=-1, required=True)
@click.option(
    "--data",
    metavar="DATA",
    help="Real inputs, in any form that --calib-data of `ptq quantize` takes; the first sample is "
    "used.  [random numbers]",
)
@click.option(
    "--shape",
    "shapes",
    metavar="[NAME=]1x3x224x224",
    multiple=True,
    help="Shape of a dynamic input; several times for several. The name may be left out where "
    "there is only one input.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    help="Threads to run with; several times to measure with each.  [1]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long to measure, for each number of threads; slow models take longer.",
)
@click.option(
    "--profile", is_flag=True, help="Show what every layer costs, kernel by kernel, in each model."
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many layers --profile shows: those that cost most in any model.",
)
@click.option("--json", "report", type=shared.FILE, help="Write everything measured here.")
@shared.FORCE
def command(models: tuple[Path, ...], *, top: int, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Compare the latency, size and memory of each MODEL with those of the first.

    The models run in turn, in one process, and the first one a second time as a control. What it
    differs from itself is the resolution of the measurement; a ratio within that is no difference.
    """
    from ptq.benching import BenchOptions, bench
    from ptq.data.shapes import parse_shapes
    from ptq.report.bench import bench_text

    shapes = parse_shapes(given.pop("shapes"))
    with progress_bars() as on_progress:
        found = bench(models, BenchOptions(shapes=shapes, on_progress=on_progress, **given))
    for notice in found.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(bench_text(found, top=top))
