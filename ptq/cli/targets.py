"""`ptq targets`: what a model can be made for."""

from __future__ import annotations

import click


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> None:
    """List every target with its types and operators, and say which one is this machine."""
    import msgspec

    from ptq.report.targets import all_targets, targets_text

    found = all_targets()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        click.echo(targets_text(found))
