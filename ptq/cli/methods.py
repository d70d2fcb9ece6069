"""`ptq methods`: what there is to choose from."""

from __future__ import annotations

import click


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> None:
    """List every range, weight, metric and training method, with its options and its source."""
    import msgspec

    from ptq.report.methods import all_methods, methods_text
    from ptq.train.fakequant import QAT_METHODS

    found = all_methods(training=QAT_METHODS.methods())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        click.echo(methods_text(found))
