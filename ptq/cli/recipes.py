"""How the options of a command come from a recipe and a preset where no flag gives them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

from ptq.cli import options as shared
from ptq.errors import ConfigError
from ptq.presets import PRESETS

if TYPE_CHECKING:
    from ptq.recipe import Recipe

#: Where a context keeps its `Found`.
_KEY = "ptq.recipe"

#: Options that say which recipe to take are not in one.
_ABOUT_RECIPES = ("recipe", "no-recipe")

OPTIONS = shared.together(
    click.option(
        "--recipe",
        type=shared.FILE,
        metavar="TOML",
        expose_value=False,
        help="Take options from this file.  [ptq.toml, or [tool.ptq] in pyproject.toml, of the "
        "current folder or the nearest above]",
    ),
    click.option("--no-recipe", is_flag=True, expose_value=False, help="Look for no such file."),
)

PRESET = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Other defaults. "
    + "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    + ".  [balanced]",
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a command took from a recipe and a preset.

    Attributes:
        recipe: the recipe, if there is one.
        values: defaults of parameters, by their names.
        extras: what it has beside options: ``override``, ``placement``.
        sources: where each of the values comes from.
    """

    recipe: Recipe | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def under(self, other: Found) -> Found:
        """Return what both hold; of a parameter that both have, the other's value."""
        return Found(
            recipe=other.recipe,
            values={**self.values, **other.values},
            extras={**self.extras, **other.extras},
            sources={**self.sources, **other.sources},
        )


class RecipeCommand(click.Command):
    """A command whose options may come from a recipe, which flags and variables win over.

    Attributes:
        table: the command whose table of the recipe holds; the command's own if empty.
        own: options, by their long names, that are not in that table, or mean something else there.
    """

    table: ClassVar[str] = ""
    own: ClassVar[frozenset[str]] = frozenset()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the recipe first: click takes from ``default_map`` what it does not find before."""
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=[*args])
            help_option = self.get_help_option(ctx)
            if help_option is None or help_option.name not in given:
                self._take_defaults(ctx, given)
        return super().parse_args(ctx, args)

    def _take_defaults(self, ctx: click.Context, given: Mapping[str, Any]) -> None:
        """Set what holds where neither a flag nor a variable says otherwise."""
        recipe = _chosen(ctx, given, self)
        found = self.settings_of(recipe, given) if recipe is not None else Found()
        ctx.default_map = dict(found.values)  # may name the preset
        parameters = by_key(self)
        if "preset" in parameters:
            preset = _early(ctx, given, parameters["preset"])
            if preset is not None:
                found = self._with_defaults(found, preset)
        ctx.default_map = dict(found.values)
        ctx.meta[_KEY] = found

    def settings_of(self, recipe: Recipe, given: Mapping[str, Any]) -> Found:
        """Return what a recipe holds for this command and the model that is its first argument."""
        return self.table_of(recipe, given, self.table or str(self.name), self.own)

    def table_of(
        self, recipe: Recipe, given: Mapping[str, Any], command: str, own: Collection[str]
    ) -> Found:
        """Return what the table of a command holds for this one.

        Args:
            recipe: the recipe.
            given: the arguments.
            command: whose table.
            own: options of this command that are passed over.
        """
        require_known(recipe)
        first = next(str(p.name) for p in self.params if isinstance(p, click.Argument))
        model = Path(given[first]) if isinstance(given.get(first), str) else None
        origins = {key: where for where, table in recipe.layers(command, model) for key in table}
        parameters = {key: p for key, p in by_key(self).items() if key not in own}
        settings = recipe.settings(command, model)
        options = {key: parameters[key] for key in settings if key in parameters}
        return Found(
            recipe=recipe,
            values={str(o.name): native(o, settings[key]) for key, o in options.items()},
            extras={key: value for key, value in settings.items() if key not in parameters},
            sources={str(o.name): f"{recipe.path.name} {origins[k]}" for k, o in options.items()},
        )

    def _with_defaults(self, found: Found, preset: str) -> Found:
        """Return what a recipe says, and of a preset what it does not say."""
        parameters = by_key(self)
        settings = {k: v for k, v in PRESETS[preset].settings.items() if k in parameters}
        named = {str(parameters[k].name): v for k, v in settings.items()}
        return replace(
            found,
            values={**named, **found.values},
            sources={**dict.fromkeys(named, f"preset {preset}"), **found.sources},
        )


def found(ctx: click.Context) -> Found:
    """Return what the command of this context took from a recipe."""
    there = ctx.meta[_KEY]
    assert isinstance(there, Found)
    return there


def source_of(ctx: click.Context, parameter: click.Parameter) -> str:
    """Return where the value of a parameter comes from, for people."""
    name = str(parameter.name)
    source = ctx.get_parameter_source(name)
    if source == ParameterSource.ENVIRONMENT:
        return f"{ctx.auto_envvar_prefix}_{name.upper()}"
    if source == ParameterSource.DEFAULT_MAP:
        return found(ctx).sources[name]
    return "flag" if source == ParameterSource.COMMANDLINE else "default"


def with_preset(ctx: click.Context, preset: str) -> dict[str, Any]:
    """Return the values of all parameters as they would be with another preset."""
    values = dict(ctx.params)
    settings = PRESETS[preset].settings
    for key, parameter in by_key(ctx.command).items():
        name, source = str(parameter.name), source_of(ctx, parameter)
        if source.startswith("preset ") or (source == "default" and key in settings):
            value = settings.get(key, parameter.default)  # get_default would ask the recipe
            values[name] = parameter.process_value(ctx, value)
    return values


def by_key(command: click.Command) -> dict[str, click.Parameter]:
    """Return the options of a command by their long names, as a recipe spells them."""
    return {
        _key(p): p
        for p in command.params
        if isinstance(p, click.Option) and _key(p) not in _ABOUT_RECIPES
    }


def _key(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--")).removeprefix("--")


def _chosen(ctx: click.Context, given: Mapping[str, Any], command: click.Command) -> Recipe | None:
    """Return the recipe that was asked for, or that is there."""
    about = {
        p.name: _early(ctx, given, p) for p in command.params if p.name in ("recipe", "no_recipe")
    }
    path = about["recipe"]
    if about["no_recipe"]:
        if path is not None:
            raise ConfigError("--recipe and --no-recipe exclude each other; leave one out")
        return None
    from ptq.recipe import find_recipe, load_recipe

    if path is None:
        there = find_recipe(Path())
        if there is None:
            return None
        path = Path(os.path.relpath(there))
        click.echo(f"using {path}", err=True)
    return load_recipe(path)


def _early(ctx: click.Context, given: Mapping[str, Any], parameter: click.Parameter) -> Any:  # noqa: ANN401 - of many types
    """Return the value of a parameter before the others are parsed; ``None`` if it has none."""
    value, source = parameter.consume_value(ctx, given)
    return None if source == ParameterSource.DEFAULT else parameter.type_cast_value(ctx, value)


def require_known(recipe: Recipe) -> None:
    """Check the keys of a recipe against the options that the commands have, and the values.

    Raises:
        ConfigError: there is no such option, or it does not take the value.
    """
    from ptq.recipe import COMMANDS

    for command in COMMANDS:
        tables = [(where, table) for where, table in recipe.every(command) if table]
        if not tables:
            continue
        parameters = by_key(import_module(f"ptq.cli.{command}").command)
        for where, table in tables:
            for key, value in table.items():
                _require_known(f"{recipe.path}: {where}", command, parameters, key, value)


def _require_known(
    where: str, command: str, parameters: Mapping[str, click.Parameter], key: str, value: object
) -> None:
    from ptq.recipe import OVERRIDE, PLACEMENT, unknown_key

    if key in (OVERRIDE, PLACEMENT) and command == "quantize":
        return
    for name, parameter in parameters.items():
        if f"--{key}" in parameter.secondary_opts:
            raise ConfigError(f"{where} has unknown key '{key}'; write {name} = false")
    if key in _ABOUT_RECIPES:
        raise ConfigError(f"{where} has '{key}', which is of the command line; remove it")
    if key not in parameters:
        raise ConfigError(f"{where} has {unknown_key(key, parameters)}")
    try:
        native(parameters[key], value)
    except click.BadParameter as error:
        reason = error.message.rstrip(".")
        raise ConfigError(f"{where} {key}: {reason[:1].lower()}{reason[1:]}") from error


def native(parameter: click.Parameter, value: object) -> object:
    """Return a value of TOML as click wants it.

    Raises:
        click.BadParameter: the option does not take it.
    """
    if not parameter.multiple:
        return _one(parameter, value)
    if isinstance(value, dict):
        return [_one(parameter, f"{key}={_word(v)}") for key, v in value.items()]
    return [_one(parameter, v) for v in (value if isinstance(value, list) else [value])]


def _one(parameter: click.Parameter, value: object) -> object:
    kind = parameter.type
    if isinstance(kind, click.Choice) and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a choice of numbers
    for kinds, types, name in _TYPES:
        if isinstance(kind, kinds):
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                from ptq.toml_writer import toml_value

                raise click.BadParameter(f"takes {name}, not {toml_value(value)}")
            break
    return kind.convert(value, parameter, None)


#: What TOML has to hold for an option of some type.
_TYPES: tuple[tuple[tuple[type, ...], tuple[type, ...], str], ...] = (
    ((type(click.BOOL),), (bool,), "true or false"),
    ((type(click.INT),), (int,), "a whole number"),
    ((type(click.FLOAT),), (int, float), "a number"),
    ((type(click.STRING), click.Path, click.Choice), (str,), "text in quotes"),
)


def _word(value: object) -> str:
    """Return a value of a table as ``--option KEY=VALUE`` spells it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
