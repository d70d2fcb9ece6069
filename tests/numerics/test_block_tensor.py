"""Numbers in two levels are near, and what is stored is what they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.numerics.affine import QParams
from ptq.numerics.block_tensor import BlockTensor, TwoLevel, with_codes
from ptq.numerics.qtype import UINT4

NUMBERS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 20)),
    elements=st.floats(-1, 1, width=16),
)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("signed", [True, False])
@settings(max_examples=20)
@given(numbers=NUMBERS, power=st.integers(-60, 60))
def test_each_number_is_within_half_a_step(bits, signed, numbers, power):
    numbers = np.ldexp(numbers if signed else np.abs(numbers), power)
    found = TwoLevel.of(numbers, bits, 8, signed=signed)
    most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    for start in range(0, numbers.shape[1], 8):
        part = slice(start, start + 8)
        largest = np.abs(numbers[:, part]).max(axis=1, keepdims=True)
        # half a step; the step has 11 bits, unless it is 2^-14 of the largest of the weight
        close = largest / most / 2 + largest * 2**-11 + np.abs(numbers).max() * 2**-24
        assert np.all(np.abs(found.values()[:, part] - numbers[:, part]) <= close * (1 + 1e-6))
    assert np.abs(found.codes).max() <= most


def test_offsets_follow_scales_that_change():
    params = QParams(np.ones((1, 2), np.float32), np.full((1, 2), 8, np.uint8), UINT4, 1, 4)
    offset = np.array([[1.0, -3.0]], np.float32)
    tensor = BlockTensor(np.full((1, 8), 9, np.uint8), params, offset=offset)
    found = with_codes(tensor, tensor.codes, np.full((1, 2), 2, np.float32))
    assert np.array_equal(found.dequantize(), 2 * tensor.dequantize())
