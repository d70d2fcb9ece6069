"""Write files so that they are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ptq.errors import ConfigError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, and rename it into place.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write to '{path.parent}': {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
