"""`ptq report`: the JSON report of a quantization as a page, or as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from ptq.cli import options as shared
from ptq.errors import ConfigError


@click.command("report")
@click.argument("report", metavar="REPORT.json", type=shared.FILE)
@click.option(
    "-o",
    "--output",
    type=shared.FILE,
    metavar="PAGE.html|PAGE.md",
    help="Where to write.  [REPORT.html]",
)
@shared.FORCE
def command(report: Path, output: Path | None, *, force: bool) -> None:
    """Turn a REPORT that `ptq quantize --json` wrote into a page to look at, or into Markdown.

    A run with --report has it compare and time every layer; without, the page says what is missing.
    """
    from ptq.files import write_atomically
    from ptq.places import require_free, require_text
    from ptq.report import Report
    from ptq.report.render import page_renderer

    page = output if output is not None else report.with_suffix(".html")
    require_text([report, page])
    render = page_renderer(page)
    if page.exists() and report.exists() and page.samefile(report):
        raise ConfigError(f"'{page}' is the report itself; choose another name with -o")
    require_free([page], report, (), force=force)
    try:
        content = report.read_bytes()
    except OSError as error:
        raise ConfigError(f"'{report}' cannot be read: {error.strerror}") from error
    write_atomically(page, render(Report.from_json(content, str(report))).encode())
    click.echo(f"wrote {page}")
