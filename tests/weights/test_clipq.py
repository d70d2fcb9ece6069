"""CLIP-Q's quantizer."""

import numpy as np
import pytest

from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer

W = np.array([[-4.0, -3.0, -1.0, -0.5, 0.25, 1.0, 2.0, 5.0]], np.float32)


def codebook(prune, bits=2, w=W):
    return weight_quantizer("clipq", prune=prune).codebook(w, bits)


def values(found):
    return np.take_along_axis(found.levels, found.index, axis=1)[0].tolist()


def test_a_share_of_either_sign_is_pruned_and_intervals_have_their_means():
    # Of four of a sign, one is pruned. Left are -4 .. -0.5 and 0.25 .. 5, of lengths 3.5 and 4.75:
    # one interval of three below, two above, which meet at 2.625.
    assert values(codebook(0.25)) == pytest.approx([-8 / 3] * 3 + [0, 0, 1.5, 1.5, 5])


def test_without_pruning_only_0_is_0():
    # 4 below, 5 above: intervals of 4, and of 2.5 twice.
    assert values(codebook(0.0)) == pytest.approx([-2.125] * 4 + [13 / 12] * 3 + [5])


@pytest.mark.parametrize("prune", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_zeros_are_the_share_and_levels_are_as_many_as_the_bits_give(prune, bits):
    w = np.random.default_rng(0).standard_normal((4, 200)).astype(np.float32)
    method = weight_quantizer("clipq", prune=prune)
    tensor = method.quantize(w, QType(bits, signed=True), axis=0, symmetric=True)
    for row, codes, levels in zip(w, tensor.codes, tensor.levels, strict=True):
        pruned = int(prune * (row < 0).sum()) + int(prune * (row > 0).sum())
        assert np.count_nonzero(codes == 0) == pruned
        assert len(levels) == 2**bits
        # Each weight keeps its sign.
        assert np.all((codes == 0) | (np.sign(codes) == np.sign(row)))


def test_weights_of_one_sign_have_all_intervals():
    w = np.abs(W)
    # 0.25 .. 5 in three; there is nothing below 0.
    found = codebook(0.0, w=w)
    assert found.levels[0][0] == 0.0
    assert values(found)[0] == pytest.approx(4.5)
