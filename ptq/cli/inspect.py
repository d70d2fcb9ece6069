"""`ptq inspect`: what a model is made of, and what of it would be or is quantized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptq.cli import options as shared
from ptq.errors import UnsupportedError

if TYPE_CHECKING:
    from ptq.config import QuantizeConfig


@click.command("inspect")
@shared.MODEL
@shared.PLACEMENT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: Path, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Show inputs, outputs, operators and weights of MODEL, and the fate of every node.

    Of a model that is quantized already: the kernel that every node really runs as in onnxruntime,
    and why it is not an integer one.
    """
    try:
        show(model, shared.config_from(**given), as_json=as_json)
    except UnsupportedError:
        # refused as a float model: is it because it is quantized?
        if not _show_quantized(model, as_json=as_json):
            raise
        if given["op_types"] or given["exclude"]:
            click.echo(
                f"note: --op-types and --exclude say what would be quantized; '{model}' is "
                "quantized already, and all of it is shown",
                err=True,
            )


def show(model: Path, config: QuantizeConfig, *, as_json: bool = False) -> None:
    """Print what `ptq.inspect` finds in a float model."""
    from ptq.pipeline import inspect
    from ptq.report.inspection import inspection_text

    found = inspect(model, config)
    click.echo(shared.json_of(found) if as_json else inspection_text(found))


def _show_quantized(model: Path, *, as_json: bool) -> bool:
    from ptq.inspection import inspect_quantized
    from ptq.report.inspection import quantized_text

    found = inspect_quantized(model)
    if found is None:
        return False
    click.echo(shared.json_of(found) if as_json else quantized_text(found))
    return True
