"""`ptq calibrate`: observe once, solve many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ptq.cli import options as shared
from ptq.cli.progress import progress_bars


@click.command("calibrate")
@shared.MODEL
@shared.DATA
@click.option(
    "-o", "--output", type=shared.FILE, required=True, help="The statistics file to write (.npz)."
)
@click.option(
    "--merge",
    type=shared.FILE,
    multiple=True,
    help="Statistics of another part of the data, to add after this one's; several times. "
    "Without --calib-data the files alone are merged.",
)
@shared.PLACEMENT
@shared.OBSERVER
@shared.FORCE
def command(model: Path, *, output: Path, merge: tuple[Path, ...], **given: Any) -> None:  # noqa: ANN401 - of many types
    """Run MODEL over data once and keep the statistics of its tensors.

    `ptq quantize --stats` then solves any range method from them without running the model again.
    """
    from ptq.options import RunOptions
    from ptq.pipeline import calibrate

    fields = ("op_types", "exclude", "target", "sample_size", "ema_decay", "seed")
    config = shared.config_from(**{name: given[name] for name in fields})
    with progress_bars() as on_progress:
        found = calibrate(
            model,
            given["calib_data"],
            output,
            config,
            merge=merge,
            options=RunOptions(
                force=given["force"],
                samples=given["samples"],
                images=shared.images_from(given["image_flags"], given["image_config"]),
                threads=given["threads"],
                on_progress=on_progress,
            ),
        )
    click.echo(
        f"observed {len(found.stats)} tensors on {found.header.samples} samples; wrote {output}"
    )
