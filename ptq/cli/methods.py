"""`ptq methods`: what there is to choose from."""

from __future__ import annotations

import click


@click.command("methods")
@click.argument("name", required=False, default="")
@click.option(
    "--systems",
    "of_literature",
    is_flag=True,
    help="List the systems of the literature instead: what makes each, or why it is out of scope.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, name: str, of_literature: bool, as_json: bool) -> None:
    """List every range, weight, metric and training method, with its options and its source.

    With NAME, only what there is of that name: methods, and systems of the literature that they
    make: ptq methods lsq, ptq methods "deep compression".
    """
    from ptq.report.literature import systems, systems_text
    from ptq.report.methods import all_methods, found_text, methods_text, named
    from ptq.train.fakequant import QAT_METHODS

    if of_literature and name:
        raise click.UsageError("NAME looks through systems as well; leave out --systems")
    if of_literature:
        _print(systems(), systems_text(systems()), as_json=as_json)
        return
    methods = all_methods(training=QAT_METHODS.methods())
    if name:
        found = named(name, methods, systems())
        _print(found, found_text(found), as_json=as_json)
    else:
        _print(methods, methods_text(methods), as_json=as_json)


def _print(found: object, text: str, *, as_json: bool) -> None:
    """Print what was found, as text or as JSON."""
    import msgspec

    if as_json:
        text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    click.echo(text)
