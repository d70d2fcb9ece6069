"""Write files so that they are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptq.errors import ConfigError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, and rename it into place.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    with staged(path, content):
        pass


@contextmanager
def staged(path: Path, content: bytes) -> Iterator[None]:
    """Write a file that appears when the block succeeds, and never if it does not.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=".ptq-", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write to '{path.parent}': {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
