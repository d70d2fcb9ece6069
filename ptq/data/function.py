"""Finding a user's own Python function, named as ``package.module:function``."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ptq.errors import ConfigError

#: What names a function.
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def find_function(source: str, purpose: str) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names.

    The module is imported with the current directory in front of the search path.

    Args:
        source: a text that `FUNCTION` matches.
        purpose: what to name instead if it is no function: ``a function that yields feeds``.

    Raises:
        ConfigError: the module cannot be imported, or holds no such function.
    """
    module_name, _, path = source.partition(":")
    found: object = _import(module_name, source)
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            guess = f"did you mean '{near[0]}'" if near else "check the name"
            raise ConfigError(f"'{source}': module '{module_name}' has no '{path}'; {guess}")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigError(f"'{source}' is a {type(found).__name__}; name {purpose}")
    return found


def error_in_short(error: Exception) -> str:
    """Return the type of an error that a user's code raised, and the first line of what it says."""
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _import(name: str, source: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"'{source}': importing it raised {error_in_short(error)}") from error
        remedy = "run ptq where the module can be imported from"
        if name.endswith(".py"):
            remedy = f"write '{source.replace('.py:', ':')}'"
        raise ConfigError(f"'{source}': there is no module '{error.name}'; {remedy}") from error
    except Exception as error:
        raise ConfigError(f"'{source}': importing it raised {error_in_short(error)}") from error
    finally:
        # remove, not restore: the module may have added to the path for its own imports
        if here in sys.path:
            sys.path.remove(here)
