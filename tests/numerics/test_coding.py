"""Entropy and Huffman codes of quantized weights."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.coding import coding_of, entropy_of, huffman_lengths
from ptq.numerics.qtype import INT4, INT8_NARROW

COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def tensor(codes, levels=None, zero_point=0, qtype=INT4):
    codes = np.array(codes, np.int8)
    points = np.full(len(codes), zero_point, np.int8)
    params = QParams(np.ones(len(codes), np.float32), points, qtype, 0)
    return QTensor(codes, params, None if levels is None else np.array(levels, np.int8))


def test_entropy_of_known_distributions():
    assert entropy_of([5, 5, 5, 5]) == pytest.approx(2.0)
    assert entropy_of([8, 4, 2, 2]) == pytest.approx(1.75)
    assert entropy_of([7]) == 0.0


@given(COUNTS)
def test_a_huffman_code_is_the_shortest_of_all_prefix_codes(counts):
    lengths = huffman_lengths(counts)
    # A prefix code has these lengths if and only if they keep Kraft's inequality.
    best = min(
        sum(n * k for n, k in zip(counts, tried, strict=True))
        for tried in itertools.product(range(1, len(counts)), repeat=len(counts))
        if sum(2.0**-k for k in tried) <= 1
    )
    assert sum(n * k for n, k in zip(counts, lengths, strict=True)) == best


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=300))
def test_a_huffman_code_wastes_no_word_and_less_than_a_bit(counts):
    lengths = huffman_lengths(counts)
    assert math.fsum(2.0**-k for k in lengths) == 1.0
    mean = sum(n * k for n, k in zip(counts, lengths, strict=True)) / sum(counts)
    assert entropy_of(counts) - 1e-12 <= mean < entropy_of(counts) + 1


def test_codes_of_a_grid_are_counted_as_they_are_and_zeros_at_the_zero_point():
    found = coding_of([tensor([[3, 3, 1, 0], [3, 3, 1, 2]], zero_point=3)])
    # 3 four times, 1 twice, 0 and 2 once: 1.75 bits, which Huffman's code reaches.
    assert (found.weights, found.zeros) == (8, 4)
    assert found.entropy_bits == pytest.approx(1.75)
    assert found.huffman_bytes == 2  # 14 bits


def test_of_levels_it_counts_which_one_it_is_and_zero_is_one_symbol():
    # Levels of 3 bits that differ between channels; 0 has one level below it, or two.
    levels = [[-90, 0, 40, 127], [-127, -20, 0, 64]]
    codes = [[0, 0, 40, 127], [0, 0, 64, 64]]
    found = coding_of([tensor(codes, levels, qtype=INT8_NARROW)])
    assert found.zeros == 4
    assert found.entropy_bits == pytest.approx(entropy_of([4, 3, 1]))


def test_tensors_have_codes_of_their_own():
    ones, twos = tensor([[1, 1], [1, 1]]), tensor([[2, 2], [2, 2]])
    found = coding_of([ones, twos])
    assert (found.weights, found.entropy_bits, found.huffman_bytes) == (8, 0.0, 0)
    assert coding_of([]).entropy_bits == 0.0
