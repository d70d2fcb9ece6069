"""Which files a run may write: never what it reads, and what is there only if told so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ptq.errors import ConfigError


def require_free(
    outputs: Sequence[Path | None], model: Path, inputs: Sequence[object], *, force: bool
) -> None:
    """Refuse to overwrite, before any work is done.

    Args:
        outputs: the files to be written.
        model: the float model, never replaced.
        inputs: what else is read; the paths among it are never replaced either.
        force: whether other files may be replaced.

    Raises:
        ConfigError: a file exists and ``force`` is not given, it is no regular file or is one of
            the inputs, its folder does not exist, or two outputs have one name.
    """
    wanted = [output for output in outputs if output is not None]
    read = [Path(i) for i in inputs if isinstance(i, (str, os.PathLike))]
    for output in wanted:
        try:
            _require_free(output, model, read, force=force)
        except OSError as error:
            raise ConfigError(
                f"cannot write '{output}': {error.strerror}; choose another name"
            ) from error
    places = [output.parent.resolve() / output.name for output in wanted]
    twice = [o for o, place in zip(wanted, places, strict=True) if places.count(place) > 1]
    if twice:
        what = "the model and the report" if wanted[0] in twice else "the page and the report"
        raise ConfigError(f"'{twice[0]}' is to be {what}; give two names")


def _require_free(output: Path, model: Path, read: Sequence[Path], *, force: bool) -> None:
    if output.is_dir():
        raise ConfigError(f"'{output}' is a folder; give the name of a file")
    if _is_same(output, model):
        raise ConfigError(f"'{output}' is the float model itself; choose another name with -o")
    if any(_is_same(output, path) for path in read):
        raise ConfigError(f"'{output}' is read by this run; choose another name for the output")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise ConfigError(f"'{output}' is a link or a device; give the name of a plain file")
    if output.exists() and not force:
        raise ConfigError(f"'{output}' exists; give --force to replace it, or another name")
    if not output.parent.is_dir():
        raise ConfigError(f"folder '{output.parent}' does not exist; create it first")


def _is_same(output: Path, path: Path) -> bool:
    try:
        return output.samefile(path)
    except OSError:  # one of them does not exist
        return False


def require_text(paths: Sequence[object]) -> None:
    """Refuse paths that have no spelling in UTF-8: onnxruntime and JSON know no others.

    Args:
        paths: whatever the user gave; what is no path is passed over.

    Raises:
        ConfigError: there is one.
    """
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            continue
        try:
            str(Path(path).absolute()).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{os.fspath(path)!a} is no UTF-8 in the current locale; rename it, or set a UTF-8 "
                "locale such as LC_ALL=C.UTF-8"
            ) from error
