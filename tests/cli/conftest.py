"""What the tests of the command line share."""

import numpy as np
import pytest


@pytest.fixture
def work(tmp_path, digits, monkeypatch):
    """A folder to work in, with copies of the small network and its data; the current one."""
    for path in (digits.model, digits.calibration, digits.evaluation):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def savez():
    """Write an .npz and return its path."""

    def save(path, **arrays):
        np.savez(path, **arrays)
        return path

    return save
