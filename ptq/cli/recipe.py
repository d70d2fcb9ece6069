"""`ptq recipe`: the settings that hold for a model, and those that made one."""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ptq.cli import options as shared
from ptq.cli import recipes

_COMMANDS = ("quantize", "check", "tune")


@click.group("recipe")
def command() -> None:
    """Show the settings that hold for a model, or those that made one."""


@command.command("show", context_settings={"ignore_unknown_options": True})
@click.option(
    "--command",
    "name",
    type=click.Choice(_COMMANDS),
    default="quantize",
    show_default=True,
    help="Whose settings.",
)
@click.argument("arguments", metavar="[MODEL] [OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def show(ctx: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Print the settings that a command would take, as a recipe.

    OPTIONS are those of the command, --recipe, --no-recipe and --preset among them. A comment
    says of each value where it comes from. Paths are relative to the current folder.
    """
    asked = _relaxed(import_module(f"ptq.cli.{name}").command)
    with asked.make_context(name, [*arguments], parent=ctx.find_root()) as inner:
        click.echo(_effective(inner))


@command.command("extract")
@click.argument("quantized", metavar="QUANT.onnx", type=shared.FILE)
@click.option("-o", "--output", type=shared.FILE, help="Where to write.  [printed]")
@shared.FORCE
def extract(quantized: Path, output: Path | None, force: bool) -> None:
    """Print the recipe that a model holds which `ptq quantize` made.

    With it and the same model, data and version, `ptq quantize MODEL --recipe FILE --calib-data
    DATA` writes the same bytes; nothing is measured again.
    """
    from ptq.embedded import read_recipe
    from ptq.errors import ConfigError
    from ptq.extracting import recipe_file
    from ptq.files import write_atomically
    from ptq.places import require_free, require_text

    require_text([quantized, output])
    if output is not None and output.exists() and output.samefile(quantized):
        raise ConfigError(f"'{output}' is the model that is read; choose another name with -o")
    require_free([output], quantized, [], force=force)
    made = read_recipe(quantized)
    if output is None:
        click.echo(recipe_file(made), nl=False)
        return
    write_atomically(output, recipe_file(made).encode())
    data = "" if made.data_sha256 is None else " --calib-data DATA"
    click.echo(f"wrote {output}; run `ptq quantize MODEL --recipe {output}{data}`")


def _relaxed(asked: click.Command) -> click.Command:
    """Return the command with nothing required, so that its settings can be shown without."""
    relaxed = copy.copy(asked)
    relaxed.params = [copy.copy(parameter) for parameter in asked.params]
    for parameter in relaxed.params:
        parameter.required = False
    return relaxed


def _effective(ctx: click.Context) -> str:
    """Return the settings of a parsed command as TOML."""
    from ptq.extracting import by_option
    from ptq.recipe import OVERRIDE, PLACEMENT
    from ptq.toml_writer import toml_lines

    table: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for key, parameter in recipes.by_key(ctx.command).items():
        value = _plain(parameter, ctx.params.get(str(parameter.name)))
        if value in (None, [], ""):
            continue
        table[key] = value
        notes[key] = recipes.source_of(ctx, parameter)
    lines = [f"[{ctx.info_name}]", *toml_lines(table, notes)]
    extras = recipes.found(ctx).extras
    if PLACEMENT in extras:
        lines += ["", f"[{ctx.info_name}.{PLACEMENT}]", *toml_lines(by_option(extras[PLACEMENT]))]
    for override in extras.get(OVERRIDE, ()):
        lines += ["", f"[[{ctx.info_name}.{OVERRIDE}]]", *toml_lines(by_option(override))]
    return "\n".join(lines)


def _plain(parameter: click.Parameter, value: object) -> object:
    """Return the value of an option as TOML has it."""
    if isinstance(value, tuple | list):
        return [_plain(parameter, v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and isinstance(parameter.type, click.Choice) and value.isdigit():
        return int(value)
    return value
