"""`ptq inspect`: what a model is made of, and what of it would be quantized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptq.cli import options as shared

if TYPE_CHECKING:
    from ptq.config import QuantizeConfig


@click.command("inspect")
@shared.MODEL
@shared.PLACEMENT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: Path, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Show inputs, outputs, operators and weights of MODEL, and the fate of every node."""
    show(model, shared.config_from(**given), as_json=as_json)


def show(model: Path, config: QuantizeConfig, *, as_json: bool = False) -> None:
    """Print what `ptq.inspect` finds."""
    import msgspec

    from ptq.pipeline import inspect
    from ptq.report.inspection import inspection_text

    found = inspect(model, config)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        click.echo(inspection_text(found))
