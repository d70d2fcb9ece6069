"""`ptq sensitivity`: which layers do not bear quantization, measured at the network's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ptq.cli import options as shared
from ptq.cli import quantize, recipes
from ptq.cli.progress import progress_bars

#: Options of `ptq quantize` about what is written, timed and proved; all others hold here too.
_NOT_HERE = frozenset(
    [
        *("output", "format", "scheme", "bits", "edge-bits", "block", "prefer"),
        *("max-size", "mean-bits", "min-sqnr", "awq", "data-free", "shape", "protect"),
        *("seconds", "min-speedup", "on-slower", "labels", "json", "report", "allow-larger"),
        *("force", "dry-run", "rounding", "bias-correct", "tweak-norms"),
    ]
)


class _Command(recipes.RecipeCommand):
    """What is quantized is what the table of `ptq quantize` says."""

    table = "quantize"
    own = frozenset(["json", "force", "min-sqnr"])


def _as_quantize(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `ptq quantize` that say how to quantize."""
    known = recipes.by_key(quantize.command)
    found = [o for key, o in known.items() if key not in _NOT_HERE]
    # click keeps the options of decorators in this list, the last first
    function.__dict__.setdefault("__click_params__", []).extend(reversed(found))
    return function


@click.command("sensitivity", cls=_Command)
@shared.MODEL
@recipes.OPTIONS
@click.option(
    "--trial-samples",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="On how many samples to measure each layer: of --eval-data, else of --calib-data.",
)
@click.option(
    "--tensors/--no-tensors",
    default=False,
    help="Whether to measure each activation and each weight too.  [no]",
)
@click.option(
    "--keep-float",
    type=click.IntRange(min=1),
    metavar="N",
    help="Choose up to so many layers to leave in float, measure that, and print the recipe.",
)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="Choose as few layers to leave in float as reach this SQNR of the output.",
)
@click.option(
    "--state",
    type=shared.FILE,
    help="The file that keeps what was measured, so that an interrupted run goes on.  [in the "
    "cache folder]",
)
@click.option(
    "--sort",
    type=click.Choice(["spared", "alone", "isolated", "order"]),
    default="spared",
    show_default=True,
    help="What is worst: the noise of the output that leaving the layer in float spares, the noise "
    "of quantizing the layer alone, the error at its own output; or the order of the model.",
)
@shared.TOP
@click.option("--json", type=shared.FILE, help="Write everything measured here.")
@shared.FORCE
@_as_quantize
def command(model: Path, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Measure which layers of MODEL do not bear quantization.

    'alone' is the SQNR of the network's output with just that layer quantized; 'in float' is what
    leaving just that layer in float adds to the SQNR of the quantized network, and 'spared' the
    share of its noise that goes away; 'isolated' is the SQNR at the layer's own output.
    """
    from dataclasses import replace

    from ptq.report.sensitivity import sensitivity_text
    from ptq.sensing import SensitivityOptions, sensitivity

    found = recipes.found(click.get_current_context())
    fixed = _fixed(found)
    config = quantize.config_of({**fixed, **given}, found)
    wanted = {name: given[name] for name in ("trial_samples", "tensors", "keep_float")}
    with progress_bars() as on_progress:
        run = quantize.run_options_of({**fixed, **given, "min_sqnr": None}, found)
        options = SensitivityOptions(
            run=replace(run, on_progress=on_progress),
            min_sqnr=given["min_sqnr"],
            state=given["state"],
            **wanted,
        )
        measured = sensitivity(model, given["calib_data"], config, options)
    for notice in measured.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(sensitivity_text(measured, top=given["top"], by=given["sort"]))


def _fixed(found: recipes.Found) -> dict[str, Any]:
    """Return what is not asked for here: the scheme of the recipe, and defaults."""
    context = quantize.command.make_context("quantize", [], resilient_parsing=True)
    names = {str(o.name) for key, o in recipes.by_key(quantize.command).items() if key in _NOT_HERE}
    fixed = {name: value for name, value in context.params.items() if name in names}
    # to measure another scheme than the user's is not what was asked for
    return {**fixed, "scheme": found.extras.get("scheme", fixed["scheme"])}
