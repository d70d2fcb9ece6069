"""Fixtures of the data tests."""

import numpy as np
import pytest

from ptq.data import InputSpec


@pytest.fixture
def spec():
    """Return a function that writes an `InputSpec` in short."""

    def make(name="x", shape=("N", 3, 4, 5), dtype="float32"):
        return InputSpec(name, np.dtype(dtype), shape)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(7)
