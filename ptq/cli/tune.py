"""`ptq tune`: the cheapest settings that hold an accuracy, a speed and a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptq.cli import options as shared
from ptq.cli import quantize, recipes
from ptq.cli.limits import LIMIT
from ptq.cli.progress import tune_bar
from ptq.errors import ThresholdError

if TYPE_CHECKING:
    from ptq.recipe import Recipe
    from ptq.tune_options import TuneOptions

#: Options of `ptq quantize` that tuning sets itself, or that mean something else here; all others
#: say what it starts from.
_NOT_HERE = frozenset(
    [
        *("output", "scheme", "bits", "prefer", "min-speedup", "on-slower", "stats", "eval-data"),
        *("labels", "json", "report", "force", "dry-run", "awq"),
        *("max-size", "mean-bits", "min-sqnr", "data-free", "shape"),
    ]
)

#: Of a recipe's [quantize] table these say where data is, which is the same here.
_SAME_DATA = frozenset(["eval-data", "labels"])


#: Parameters that are fields of `TuneOptions` as they are.
_OWN = (
    *("report_data", "report_labels", "eval_samples", "metrics", "max_drop", "min_speedup"),
    *("max_size", "time_budget", "confidence", "to_the_top", "front", "state"),
)


class _Command(recipes.RecipeCommand):
    """What it starts from is what [quantize] says; its own table says more, and wins."""

    def settings_of(self, recipe: Recipe, given: Mapping[str, Any]) -> recipes.Found:
        """Return what both tables hold."""
        skipped = _NOT_HERE - _SAME_DATA
        general = self.table_of(recipe, given, "quantize", skipped)
        return general.under(self.table_of(recipe, given, "tune", frozenset()))


def _as_quantize(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `ptq quantize` that say what to start from."""
    known = recipes.by_key(quantize.command)
    found = [o for key, o in known.items() if key not in _NOT_HERE]
    # click keeps the options of decorators in this list, the last first
    function.__dict__.setdefault("__click_params__", []).extend(reversed(found))
    return function


@click.command(
    "tune",
    cls=_Command,
    epilog="Exit codes: 0 every limit holds, 3 nothing that was tried holds them all (what comes "
    "nearest is written, and all files), 2 wrong usage or configuration, 1 no model could be made, "
    "130 interrupted: run the same command again to go on.",
)
@shared.MODEL
@recipes.OPTIONS
@click.option("-o", "--output", type=shared.FILE, help="Where to write.  [MODEL.tuned.onnx]")
@click.option(
    "--eval-data",
    metavar="DATA",
    help="Real inputs that calibration has not seen, as --calib-data: half of them choose, and "
    "the figures are of the other half.",
)
@click.option(
    "--labels",
    type=shared.FILE,
    help="The right answer of each row of --eval-data, a class or a text: as of `ptq check`.",
)
@click.option(
    "--report-data",
    metavar="DATA",
    help="Other inputs for the figures; all of --eval-data chooses.",
)
@click.option("--report-labels", type=shared.FILE, help="Their right answers.")
@click.option(
    "--eval-samples", type=click.IntRange(min=1), help="How many of --eval-data to use.  [all]"
)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME[:OPTION=VALUE,...]",
    multiple=True,
    help="The task figure that --max-drop holds, or package.module:function; several times for "
    "several.  [top-1 of class labels, character error rate of texts, else agreement of classes, "
    "else cosine similarity]",
)
@click.option(
    "--max-drop",
    type=LIMIT,
    metavar="0.5%",
    default="1%",
    show_default=True,
    help="How much worse than the float model the task figure may be: of a share, points; of "
    "others, a number, or a percentage of the float model's figure.",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Least speed, in times that of the float model.",
)
@click.option(
    "--max-size",
    type=LIMIT,
    metavar="30%|5MB",
    help="Largest size, as a part of the float model's or as it is.",
)
@click.option(
    "--time-budget",
    type=LIMIT,
    metavar="90s|10m|1h",
    default="10m",
    show_default=True,
    help="What trials may take in all, those of interrupted runs too.",
)
@click.option(
    "--all",
    "to_the_top",
    is_flag=True,
    help="Try everything that the budget allows, and take the fastest that holds every limit; not "
    "the first.",
)
@click.option(
    "--confidence",
    type=LIMIT,
    metavar="95%",
    default="95%",
    show_default=True,
    help="Of the intervals.",
)
@click.option(
    "--front",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the recipe of each point of the Pareto front here.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder that keeps trials, so that an interrupted run goes on.  [in the cache folder]",
)
@click.option("--json", type=shared.FILE, help="Write everything that was tried here.")
@click.option(
    "--report",
    type=shared.FILE,
    metavar="PAGE.html|PAGE.md",
    help="Write the front as a chart, with a recipe for each point; or the table as Markdown.",
)
@shared.FORCE
@_as_quantize
def command(model: Path, **given: Any) -> None:  # noqa: ANN401 - of many types
    """Find the cheapest settings with which MODEL stays within a drop, and write that model.

    Ranges, corrected biases, moved scales, rounding by GPTQ, layers in float and other schemes are
    tried in this order, each on the best before it, until every limit holds. Each trial is kept:
    the same command goes on where it was interrupted, and gives the same answer again.
    """
    from ptq.report.tuning import tuning_text
    from ptq.tune_options import TuneOptions
    from ptq.tuning import tune

    found = recipes.found(click.get_current_context())
    fixed = _fixed()
    config = quantize.config_of({**fixed, **given}, found)
    with tune_bar() as on_tune:
        # limits of the same names are on one quantization there, and on the search here
        run = quantize.run_options_of({**given, **fixed, **_same_place(given)}, found)
        run = replace(run, placement=None)
        options = TuneOptions(run=run, on_tune=on_tune, **{name: given[name] for name in _OWN})
        try:
            tuned = tune(model, given["calib_data"], config, options)
        except KeyboardInterrupt:
            click.echo(_said_of_trials(options), err=True)
            raise
    for notice in tuned.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(tuning_text(tuned))
    if not tuned.satisfied:
        raise ThresholdError(f"{tuned.verdict}; it is '{tuned.output}'")
    click.echo(f"\n{tuned.verdict}: {tuned.output}")


def _same_place(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options about files, which mean here what they mean to `ptq quantize`."""
    names = ("output", "json", "report", "force", "eval_data", "labels")
    return {name: given[name] for name in names}


def _said_of_trials(options: TuneOptions) -> str:
    from ptq.tuning import state_folder

    if state_folder(options) is None:
        return "no trial was kept, for there is no cache folder; give --state DIR to keep them"
    return "what was tried is kept; run the same command to go on"


def _fixed() -> dict[str, Any]:
    """Return the defaults of what is not asked for here."""
    context = quantize.command.make_context("quantize", [], resilient_parsing=True)
    names = {str(o.name) for key, o in recipes.by_key(quantize.command).items() if key in _NOT_HERE}
    return {name: value for name, value in context.params.items() if name in names}
