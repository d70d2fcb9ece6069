"""`ptq batch`: every model that a recipe names, quantized and checked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from ptq.cli import options as shared
from ptq.cli.progress import batch_bar


@click.command(
    "batch",
    epilog="Exit codes: 0 all is well, 3 a threshold was missed and nothing else is wrong, 1 a "
    "model failed or was not run, 2 wrong usage or recipe (nothing was done), 130 interrupted.",
)
@click.argument("recipe", metavar="RECIPE.toml", type=shared.FILE)
@click.option(
    "--only",
    metavar="GLOB",
    multiple=True,
    help="Only the models whose path or name matches; may be given several times.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for all quantized models, whatever the recipe says.  [beside each model]",
)
@click.option("--fail-fast", is_flag=True, help="End at the first model that is not well.")
@click.option(
    "--force",
    is_flag=True,
    help="Quantize what is up to date too, and replace files that ptq did not make.",
)
@click.option("--json", "report", type=shared.FILE, help="Write what came of each model here.")
@click.option("--markdown", type=shared.FILE, help="Write the table for a pull request here.")
@click.pass_context
def command(  # noqa: PLR0913 - one for each option
    ctx: click.Context,
    recipe: Path,
    *,
    only: tuple[str, ...],
    out: Path | None,
    fail_fast: bool,
    force: bool,
    report: Path | None,
    markdown: Path | None,
) -> None:
    """Quantize and check every model that a [[model]] of the recipe matches.

    One after the other, because timings need a quiet machine. Models that are up to date are only
    checked. A model that fails does not keep the others from their turn.
    """
    from ptq.batching import BatchOptions, batch
    from ptq.cli.tasks import read_tasks
    from ptq.files import staged
    from ptq.places import require_free
    from ptq.report.batch import batch_markdown, batch_text

    tasks = read_tasks(recipe, only=only, folder=out)
    taken = [recipe, *(place for task in tasks for place in (task.model, *task.places))]
    require_free([report, markdown], tasks[0].model, taken, force=True)
    with batch_bar(len(tasks)) as (on_progress, on_row):
        found = batch(
            tasks,
            BatchOptions(force=force, fail_fast=fail_fast, on_progress=on_progress, on_row=on_row),
        )
    with ExitStack() as stack:
        if report is not None:
            stack.enter_context(staged(report, found.to_json()))
        if markdown is not None:
            stack.enter_context(staged(markdown, batch_markdown(found).encode()))
    click.echo(batch_text(found))
    ctx.exit(found.exit_code)
