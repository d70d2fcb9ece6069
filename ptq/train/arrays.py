"""Named arrays as a file: one .npz without pickle, the same bytes for the same arrays."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ptq.errors import TrainingError

#: The smallest time a zip archive can hold; without it the bytes would depend on the clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)

_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an ``.npz`` of arrays, in their order, not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` by name.

    Raises:
        TrainingError: there is no such file, or it holds anything but arrays.
    """
    try:
        # np.load would do, but leaves a damaged file open
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
            return arrays
    except OSError as error:
        raise TrainingError(f"cannot read '{path}': {error.strerror or error}") from error
    except _DAMAGED as error:
        raise TrainingError(
            f"'{path}' is no .npz of plain arrays ({error}); write it anew"
        ) from error
