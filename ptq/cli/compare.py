"""`ptq compare`: where a quantized model departs from the float one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ptq.cli import options as shared
from ptq.cli.progress import progress_bars

_KEYS = ("isolated", "accumulated", "clip", "shift", "order")


@click.command("compare")
@click.argument("reference", type=shared.FILE)
@click.argument("quantized", type=shared.FILE)
@click.option(
    "--data",
    metavar="DATA",
    required=True,
    help="Real inputs, in any form that --calib-data of `ptq quantize` takes.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="How many samples to use, evenly spaced.",
)
@shared.IMAGES
@click.option(
    "--sort",
    type=click.Choice(_KEYS),
    default="isolated",
    show_default=True,
    help="What is worst: the error of a layer alone, the error accumulated up to it, the share of "
    "clipped values, the shift of the mean; or the order of the model.",
)
@shared.TOP
@click.option(
    "--isolated/--no-isolated",
    default=True,
    help="Whether to measure each layer alone too, fed from the float model.  [isolated]",
)
@shared.threads("run with")
@click.option("--json", "report", type=shared.FILE, help="Write everything measured here.")
@shared.FORCE
def command(**given: Any) -> None:  # noqa: ANN401 - of many types
    """Show layer by layer how far the model QUANTIZED is from the float model REFERENCE.

    'isolated' is the error of one layer that reads the float model's tensors, 'accumulated' that
    with everything before it quantized too; 'shift' is the mean of the difference relative to the
    tensor's size, 'clipped' the share of float values that no integer stands for.
    """
    from ptq.comparing import CompareOptions, compare
    from ptq.report.comparison import comparison_text

    paths: tuple[Path, Path] = given.pop("reference"), given.pop("quantized")
    data, top, by = given.pop("data"), given.pop("top"), given.pop("sort")
    images = shared.images_from(given.pop("image_flags"), given.pop("image_config"))
    with progress_bars() as on_progress:
        found = compare(
            *paths, data, CompareOptions(images=images, on_progress=on_progress, **given)
        )
    for notice in found.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(comparison_text(found, top=top, by=by))
