"""What a recipe asks for, model by model, parsed by the commands that the options are of."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ptq.cli import recipes
from ptq.errors import ConfigError

if TYPE_CHECKING:
    from ptq.batching import Checks, Task
    from ptq.recipe import Recipe


def read_tasks(
    recipe: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
) -> list[Task]:
    """Return what a recipe asks for: a task for each file that one of its ``[[model]]`` matches.

    Every option means what it means to `ptq quantize` and `ptq check`: variables such as
    ``PTQ_QUANTIZE_SECONDS`` win over the recipe here too. A model is checked if the recipe holds
    any option of ``check`` for it; without ``data``, on what it was evaluated or calibrated on.

    Args:
        recipe: the file.
        only: globs; a model must match one by its path, its name, or the stem of its name.
        folder: where all quantized models go, whatever the recipe says.

    Raises:
        ConfigError: the recipe is wrong, or names no model.
    """
    from ptq.recipe import load_recipe

    read = load_recipe(Path(recipe))
    recipes.require_known(read)
    models = read.models()
    if not models:
        raise ConfigError(
            f"{read.path}: no file matches a [[{read.prefix}model]]; add one with "
            'match = "models/*.onnx"'
        )
    for glob in only:
        if not any(_matches(model, glob) for model in models):
            raise ConfigError(
                f"--only '{glob}' matches none of: {', '.join(model.stem for model in models)}"
            )
    chosen = [m for m in models if not only or any(_matches(m, glob) for glob in only)]
    tasks = [_task(read, model) for model in chosen]
    if folder is not None:
        tasks = [_moved(task, Path(folder)) for task in tasks]
    return [replace(task, checks=_checks(read, task)) for task in tasks]


def _matches(model: Path, glob: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in (str(model), model.name, model.stem))


def _moved(task: Task, folder: Path) -> Task:
    return replace(task, options=replace(task.options, output=folder / task.output.name))


def _task(recipe: Recipe, model: Path) -> Task:
    from ptq.batching import Task
    from ptq.cli import quantize

    with _parsed(quantize.command, recipe, model) as context:
        given, found = context.params, recipes.found(context)
        try:
            return Task(
                model=model,
                calibration=given["calib_data"],
                config=quantize.config_of(given, found),
                options=quantize.run_options_of(given, found),
            )
        except ConfigError as error:
            raise ConfigError(f"{recipe.path}: {model}: {error}") from error


def _checks(recipe: Recipe, task: Task) -> Checks | None:
    from ptq.batching import Checks
    from ptq.cli import check

    settings = recipe.settings("check", task.model)
    if not settings:
        return None
    more = {}
    if "data" not in settings:
        more["data"] = task.options.evaluation or task.calibration
        if task.options.evaluation is not None and "labels" not in settings:
            more["labels"] = task.options.labels
    flags = [
        f"--{name}={value}"
        for name, value in more.items()
        if value is not None and f"PTQ_CHECK_{name.upper()}" not in os.environ
    ]
    with _parsed(check.command, recipe, task.model, task.output, flags=flags) as context:
        return Checks(data=context.params["data"], options=check.options_of(context.params))


def _parsed(
    command: click.Command, recipe: Recipe, *files: Path, flags: Sequence[str] = ()
) -> click.Context:
    """Return a command's context for these files, as the command line would make it."""
    name = str(command.name)
    arguments = ["--recipe", str(recipe.path), *flags, "--", *map(str, files)]
    try:
        return command.make_context(name, arguments, auto_envvar_prefix=f"PTQ_{name.upper()}")
    except click.UsageError as error:
        reason = error.format_message().rstrip(".")
        raise ConfigError(f"{recipe.path}: {files[0]}: {reason[:1].lower()}{reason[1:]}") from error
