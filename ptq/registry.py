"""Find the methods of a kind and make one from its name and options.

A method is a `msgspec.Struct` whose tag is its name and whose fields are its options. The built-in
methods are the modules of a package; other distributions add theirs as entry points of the same
name as the package, for instance ``[project.entry-points."ptq.calib"]``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Generic, TypeVar

import msgspec

from ptq.errors import ConfigError

M = TypeVar("M", bound=msgspec.Struct)


@dataclass(frozen=True, eq=False)
class Registry(Generic[M]):
    """The methods of one kind.

    Attributes:
        kind: what to call one in messages, as in ``calibration method``.
        package: the package of the built-in methods, and the entry point group of the others.
        base: the class that all derive from.
    """

    kind: str
    package: str
    base: type[M]
    _found: dict[str, type[M]] = field(default_factory=dict, init=False, repr=False)

    def methods(self) -> dict[str, type[M]]:
        """Return the classes of all methods by name, in alphabetical order.

        Raises:
            ConfigError: an entry point does not load, is no such method, or takes a taken name.
        """
        if not self._found:
            found: dict[str, type[M]] = {}
            for cls in (*self._built_in(), *self._added()):
                name = _name(cls)
                if found.setdefault(name, cls) is not cls:
                    raise ConfigError(
                        f"two distributions offer the {self.kind} '{name}'; uninstall one"
                    )
            self._found.update(sorted(found.items()))
        return dict(self._found)

    def make(self, name: str, options: Mapping[str, object]) -> M:
        """Return the method with these options; what is not given has its default.

        Raises:
            ConfigError: no such method or option, or a value that the option does not take.
        """
        return self._make(name, options, strict=True)

    def parse(self, text: str) -> M:
        """Return the method that ``name`` or ``name:option=value,option=value`` describes.

        Raises:
            ConfigError: as `make`, or the text is not of that form.
        """
        name, colon, rest = text.partition(":")
        options: dict[str, object] = {}
        for item in rest.split(",") if colon else ():
            option, equals, value = (part.strip() for part in item.partition("="))
            if not (option and equals and value):
                raise ConfigError(
                    f"cannot read '{text}'; write a {self.kind} with options as "
                    f"{name}:option=value,option=value"
                )
            options[option] = value
        return self._make(name.strip(), options, strict=False)

    def _make(self, name: str, options: Mapping[str, object], *, strict: bool) -> M:
        methods = self.methods()
        if name not in methods:
            raise ConfigError(_unknown(self.kind, name, list(methods)))
        cls = methods[name]
        for option in options:
            if option not in cls.__struct_fields__:
                what = f"option of the {self.kind} '{name}':"
                raise ConfigError(_unknown(what, option, list(cls.__struct_fields__)))
        try:
            return msgspec.convert(dict(options), cls, strict=strict)
        except msgspec.ValidationError as error:
            reason = str(error)
            raise ConfigError(f"{self.kind} '{name}': {reason[:1].lower()}{reason[1:]}") from error

    def _built_in(self) -> Iterator[type[M]]:
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        # The metaclass of msgspec takes the class keywords, so __init_subclass__ never sees a tag.
        for cls in _descendants(self.base):
            if cls.__module__.startswith(f"{self.package}.") and _is_method(cls):
                yield cls

    def _added(self) -> Iterator[type[M]]:
        for entry in entry_points(group=self.package):
            try:
                cls = entry.load()
            except (ImportError, AttributeError) as error:
                raise ConfigError(
                    f"the {self.kind} '{entry.name}' does not load ({error}); "
                    "reinstall or remove its distribution"
                ) from error
            if not (isinstance(cls, type) and issubclass(cls, self.base) and _is_method(cls)):
                raise ConfigError(
                    f"entry point '{entry.name}' is no {self.kind}; reinstall or remove its "
                    "distribution"
                )
            yield cls


def _descendants(cls: type[M]) -> Iterator[type[M]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _name(cls: type[msgspec.Struct]) -> str:
    return str(cls.__struct_config__.tag)


def _is_method(cls: type[msgspec.Struct]) -> bool:
    """Whether the class has a tag of its own; msgspec tags the abstract ones with their name."""
    return _name(cls) != cls.__name__


def _unknown(what: str, name: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    known = f"choose one of: {', '.join(choices)}" if choices else "it has none"
    return f"unknown {what} '{name}'; {hint}{known}"
