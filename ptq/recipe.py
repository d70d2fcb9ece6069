"""Recipes: the settings of commands in a TOML file, for all models and for some by name.

A recipe is ``ptq.toml``, or the tables below ``[tool.ptq]`` of ``pyproject.toml``::

    [quantize]
    calib-data = "data/{name}.npz"
    [[quantize.override]]
    match = "/head/*"
    float = true
    [[model]]
    match = "models/ppocr_*.onnx"
    quantize = { calib = "mse" }

What its keys may be is what options the commands have, so that the command line checks them.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from ptq.config import Override
from ptq.errors import ConfigError

#: The names under which a recipe is found; the first wins where both are in a folder.
RECIPE_FILE, PROJECT_FILE = "ptq.toml", "pyproject.toml"

#: The commands that take their options from a recipe.
COMMANDS = ("quantize", "check", "tune")

#: Keys that hold a list of tables, or a table, instead of the value of an option.
OVERRIDE, PLACEMENT = "override", "placement"

#: What an extracted recipe may say about where it comes from.
_MADE_FROM = ("ptq", "model-sha256", "data-sha256")

#: Options that name a file, relative to the recipe; ``{name}`` is the stem of the model's name.
PATHS = frozenset(
    [
        *("output", "json", "report", "stats", "labels", "image-config"),
        *("baseline", "junit", "markdown", "front", "state", "report-labels"),
    ]
)

#: Options that name data: a file or a folder, but also ``random`` or a function.
DATA = frozenset({"calib-data", "eval-data", "data", "report-data"})

S = TypeVar("S", bound=msgspec.Struct)

_FUNCTION = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """What differs for some models.

    Attributes:
        match: a glob over files, relative to the folder of the recipe.
        tables: by command, options with their values.
    """

    match: str
    tables: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings in a file.

    Attributes:
        path: the file.
        tables: by command, options with their values as TOML has them.
        entries: what differs for some models; later ones win.
        made_from: what an extracted recipe was first run with: ``ptq``, ``model-sha256`` and
            ``data-sha256``.
        prefix: what stands before the names of tables: ``tool.ptq.`` in ``pyproject.toml``.
    """

    path: Path
    tables: Mapping[str, Mapping[str, Any]]
    entries: tuple[Entry, ...] = ()
    made_from: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""

    @property
    def folder(self) -> Path:
        """The folder that paths in the recipe are relative to."""
        return self.path.parent

    def settings(self, command: str, model: Path | None) -> dict[str, Any]:
        """Return the options that hold for a command and a model, by their long names.

        Paths are relative to the current folder, and have the stem of the model's name for
        ``{name}``. The key ``override`` has an ``Override`` for each ``[[quantize.override]]``,
        those of the model after the general ones, and ``placement`` a ``PinnedPlacement``; any
        value but the overrides replaces a more general one whole.

        Args:
            command: ``quantize``, ``check`` or ``tune``.
            model: the float model; ``None`` for what holds for all.
        """
        found: dict[str, Any] = {}
        for _, table in self.layers(command, model):
            overrides = (*found.get(OVERRIDE, ()), *table.get(OVERRIDE, ()))
            found |= table
            if overrides:
                found[OVERRIDE] = overrides
        return {key: self._resolved(key, value, model) for key, value in found.items()}

    def layers(self, command: str, model: Path | None) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the tables that hold for a command and a model with their names, general first."""
        return [
            (f"[{self.prefix}{command}]", self.tables.get(command, {})),
            *(
                (self._name(entry), entry.tables[command])
                for entry in self.entries
                if command in entry.tables and model is not None and self._matches(entry, model)
            ),
        ]

    def every(self, command: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return all tables of a command with their names, whatever they match."""
        return [
            (f"[{self.prefix}{command}]", self.tables.get(command, {})),
            *((self._name(e), e.tables[command]) for e in self.entries if command in e.tables),
        ]

    def models(self) -> list[Path]:
        """Return the files that an entry matches, sorted, each once.

        What quantizing another of them writes is none of them.
        """
        found = sorted({path for entry in self.entries for path in self._files(entry)})
        written = {place for model in found for place in self._written(model)}
        return [path for path in found if path not in written]

    def _name(self, entry: Entry) -> str:
        return f'[[{self.prefix}model]] "{entry.match}"'

    def _files(self, entry: Entry) -> list[Path]:
        # Path.glob takes no absolute patterns, and finds hidden files
        names = glob.glob(entry.match, root_dir=self.folder, recursive=True)  # noqa: PTH207
        places = [Path(os.path.normpath(self.folder / name)) for name in names]
        return [place for place in places if place.is_file()]

    def _matches(self, entry: Entry, model: Path) -> bool:
        return model.resolve() in {place.resolve() for place in self._files(entry)}

    def _written(self, model: Path) -> Iterable[Path]:
        output = self.settings("quantize", model).get("output")
        titles = ("mixed", *(f"int{bits}" for bits in range(2, 9)))
        places = [model.with_name(f"{model.stem}.{title}.onnx") for title in titles]
        if output is not None and Path(output) != model:
            places.append(Path(output))
        for place in places:
            yield place
            yield place.with_name(f"{place.stem}.integer{place.suffix}")

    def _resolved(self, key: str, value: object, model: Path | None) -> object:
        if not isinstance(value, str) or not (key in PATHS or (key in DATA and _is_place(value))):
            return value
        if model is not None:
            value = value.replace("{name}", model.stem)
        return os.path.normpath(self.folder / value)


def _is_place(data: str) -> bool:
    """Whether data is a path: neither ``random`` nor ``package.module:function``."""
    return data.partition(":")[0] != "random" and not _FUNCTION.fullmatch(data)


def find_recipe(start: Path) -> Path | None:
    """Return the recipe of a folder or the nearest folder above it; ``None`` if there is none.

    A folder with ``.git`` is the last that is looked at. ``ptq.toml`` wins over
    ``pyproject.toml`` beside it, which counts only if it has ``[tool.ptq]``.

    Raises:
        ConfigError: a ``pyproject.toml`` on the way seems to have a recipe, and is no TOML.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / RECIPE_FILE).is_file():
            return folder / RECIPE_FILE
        project = folder / PROJECT_FILE
        if project.is_file() and _has_recipe(project):
            return project
        if (folder / ".git").exists():
            break
    return None


def _has_recipe(project: Path) -> bool:
    if "ptq" not in project.read_text(encoding="utf-8", errors="replace"):
        return False
    tool = _read(project).get("tool", {})
    return isinstance(tool, dict) and "ptq" in tool


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; of ``pyproject.toml`` the tables below ``[tool.ptq]``.

    Raises:
        ConfigError: the file cannot be read, or its tables are none of a recipe's.
    """
    content, prefix = _read(path), ""
    if path.name == PROJECT_FILE:
        if "ptq" not in content.get("tool", {}):
            raise ConfigError(f"{path} has no [tool.ptq]; add it, or give another --recipe")
        content, prefix = content["tool"]["ptq"], "tool.ptq."
    read = _Reader(path, prefix)
    top = read.table(content, "", (*COMMANDS, "model", "made-from"))
    entries = []
    for i, given in enumerate(read.tables(top.get("model", []), f"[[{prefix}model]]")):
        where = f"[[{prefix}model]] number {i + 1}"
        entry = read.table(given, where, ("match", *COMMANDS))
        match = entry.get("match")
        if not isinstance(match, str) or not match:
            read.fail(where, 'needs a glob over model files; write match = "models/*.onnx"')
        tables = {c: read.options(entry[c], f"{where}: {c}") for c in COMMANDS if c in entry}
        entries.append(Entry(match, tables))
    return Recipe(
        path=path,
        tables={c: read.options(top[c], f"[{prefix}{c}]") for c in COMMANDS if c in top},
        entries=tuple(entries),
        made_from=read.table(top.get("made-from", {}), f"[{prefix}made-from]", _MADE_FROM),
        prefix=prefix,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe '{path}': {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError(f"{path} is not TOML: {error}; correct it there") from error


class _Reader:
    """Checks the shape of one file, and names it in what it says."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.prefix = prefix

    def fail(self, where: str, problem: str) -> NoReturn:
        """Raise an error about a table; one without a name is the top of the file."""
        raise ConfigError(f"{self.path}: {where} {problem}" if where else f"{self.path} {problem}")

    def table(self, given: object, where: str, known: Sequence[str] = ()) -> dict[str, Any]:
        """Return a table of known keys; of any if none are given."""
        if not isinstance(given, dict):
            self.fail(where, "must be a table")
        for key in given:
            if known and key not in known:
                self.fail(where, f"has {unknown_key(key, known)}")
        return given

    def tables(self, given: object, name: str) -> list[object]:
        """Return the tables of this name."""
        if not isinstance(given, list):
            self.fail("", f"needs two brackets around {name}, of which there may be several")
        return given

    def options(self, given: object, where: str) -> dict[str, Any]:
        """Return the options of a command, their values unchecked but for the overrides."""
        options = {**self.table(given, where)}
        if OVERRIDE in options:
            name = f"[[{self.prefix}quantize.{OVERRIDE}]]"
            tables = self.tables(options[OVERRIDE], name)
            place = f"{where} {OVERRIDE} number"
            options[OVERRIDE] = tuple(
                self.struct(table, f"{place} {i + 1}", Override) for i, table in enumerate(tables)
            )
        if PLACEMENT in options:
            from ptq.embedded import PinnedPlacement  # it knows images and takes long to import

            place = f"{where} {PLACEMENT}"
            options[PLACEMENT] = self.struct(options[PLACEMENT], place, PinnedPlacement)
        return options

    def struct(self, given: object, where: str, kind: type[S]) -> S:
        """Return a table as a struct; in the file its fields have dashes."""
        known = [f.name.replace("_", "-") for f in msgspec.structs.fields(kind)]
        fields = {k.replace("-", "_"): v for k, v in self.table(given, where, known).items()}
        try:
            return msgspec.convert(fields, kind)
        except msgspec.ValidationError as error:
            what, _, place = str(error).partition(" - at ")
            key = place.strip("`").removeprefix("$.").replace("_", "-")
            self.fail(f"{where}:", f"{key}: {what[:1].lower()}{what[1:].replace(' | null', '')}")
        except ConfigError as error:
            self.fail(f"{where}:", str(error))


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return what to say of a key that is none: with the nearest one, or with all."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    guess = f"did you mean '{near[0]}'?" if near else f"choose from: {', '.join(known)}"
    return f"unknown key '{key}'; {guess}"
