"""Block quantizers against published constants, closed forms and worked examples."""

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.block_methods.fp8 import Fp8Blocks
from ptq.block_methods.hqq import HqqBlocks, shrink
from ptq.block_methods.kquant import KquantBlocks, fitted
from ptq.block_methods.mse import MseBlocks
from ptq.block_methods.mxfp4 import Mxfp4Blocks
from ptq.block_methods.nf4 import Nf4Blocks, normal_float
from ptq.numerics.block_tensor import BlockTensor
from ptq.numerics.blocks import BlockFormat, quantize_blocks
from ptq.numerics.qtype import QType

VECTORS = json.loads((Path(__file__).parents[1] / "numerics" / "vectors.json").read_text())
W = np.array([VECTORS["inputs"]["w"]], np.float32)


def layout(bits=4, block=32, *, symmetric=True):
    return BlockFormat(QType(bits, signed=False), 1, block, symmetric)


def laplace(shape, seed=0):
    return np.random.default_rng(seed).laplace(size=shape).astype(np.float32)


def sqnr_db(w, tensor):
    return 10 * np.log10(np.sum(w.astype(float) ** 2) / np.sum((w - tensor.dequantize()) ** 2))


# -- NF4 -----------------------------------------------------------------------------------------

#: Dettmers et al. 2023, appendix E.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def test_the_levels_of_nf4_are_those_of_the_paper():
    # the offset of the reference has 7 digits
    np.testing.assert_allclose(normal_float(), PUBLISHED, atol=1e-7)


def test_nf4_takes_the_nearest_level():
    tensor = Nf4Blocks().quantize(W, layout(block=8))
    table = tensor.levels[0, 0]
    assert np.searchsorted(table, tensor.codes)[0].tolist() == VECTORS["nf4"]["idx"]
    assert table.tolist() == np.rint(127 * np.array(PUBLISHED)).tolist()
    assert tensor.qparams.scale == np.float32(1.5) / np.float32(127)


# -- MX and float8 -------------------------------------------------------------------------------


def test_mxfp4_is_that_of_the_worked_example():
    wanted = VECTORS["mxfp4"]
    tensor = Mxfp4Blocks().quantize(W, layout(block=8))
    # codes are twice the elements, and scales half of the shared power
    assert (tensor.codes[0] / 2).tolist() == wanted["elements"]
    assert float(tensor.qparams.scale[0, 0]) == wanted["X"] / 2
    assert tensor.dequantize()[0].tolist() == wanted["dq"]


def test_mxfp4_saturates_above_6_units():
    w = np.array([[7.9, -7.9, 6.1, 2.5, 3.5]], np.float32)  # a unit of 1, for 4 <= 7.9 < 8
    found = Mxfp4Blocks().quantize(w, layout()).dequantize()
    assert found.tolist() == [[6.0, -6.0, 6.0, 2.0, 4.0]]  # ties go to an even mantissa


@pytest.mark.parametrize(("format", "largest"), [("e4m3", 448.0), ("e5m2", 57344.0)])
def test_the_largest_weight_of_a_block_is_the_largest_float8(format, largest):
    w = laplace((4, 64))
    tensor = Fp8Blocks(format=format).quantize(w, layout(8))
    each = np.abs(w).reshape(4, 2, 32).max(axis=2)
    assert tensor.qparams.scale == pytest.approx(each / largest, rel=1e-6)
    found = np.abs(tensor.dequantize()).reshape(4, 2, 32).max(axis=2)
    assert found == pytest.approx(each, rel=1e-6)


# -- k-quant -------------------------------------------------------------------------------------

ROWS = hnp.arrays(np.float64, (3, 7), elements=st.floats(-4, 4))


@given(
    w=ROWS,
    worth=hnp.arrays(np.float64, (3, 7), elements=st.floats(0.125, 8)),
    seed=st.integers(0, 99),
)
def test_scale_and_offset_solve_weighted_least_squares(w, worth, seed):
    codes = np.random.default_rng(seed).integers(0, 16, w.shape)
    scale, offset, solved = fitted(w, worth, codes)
    for i in range(len(w)):
        root = np.sqrt(worth[i])
        columns = np.stack([root * codes[i], root], axis=1)
        [s, m], *_ = np.linalg.lstsq(columns, root * w[i], rcond=None)
        if solved[i]:
            assert [scale[i], offset[i]] == pytest.approx([s, m], abs=1e-8)
        else:
            assert s <= 1e-9


def test_codes_that_are_all_the_same_have_no_scale():
    w = np.array([[1.0, 2.0, 3.0]])
    assert not fitted(w, np.ones_like(w), np.full(w.shape, 5))[2].any()


def test_kquant_is_between_the_range_and_the_best_there_is():
    """Brute force over all codes of 2 bits, each with its least squares."""
    better = 0
    every = np.array(list(product(range(4), repeat=5)))
    for w in laplace((20, 5)).astype(np.float64):
        worth = np.sqrt(np.mean(w**2)) + np.abs(w)

        def error(found, w=w, worth=worth):
            return np.sum(worth * (found - w) ** 2, axis=-1)

        many = np.broadcast_to(w, every.shape)
        s, m, solved = fitted(many, np.broadcast_to(worth, every.shape), every)
        best = error(s[:, None] * every + m[:, None])[solved].min()
        row = w[None].astype(np.float32)
        found = error(KquantBlocks(scale_bits=0).quantize(row, layout(2)).dequantize()[0])
        step = np.ptp(w) / 3
        plain = error(np.rint((w - w.min()) / step) * step + w.min())
        assert best * (1 - 1e-6) <= found <= plain * (1 + 1e-6)
        better += found < 0.99 * plain
    assert better > 10


@pytest.mark.parametrize(("scale_bits", "lost_db"), [(8, 0.05), (6, 0.3), (4, 2)])
def test_scales_in_few_bits_cost_little_and_are_what_is_stored(scale_bits, lost_db):
    w = laplace((64, 512))
    exact = KquantBlocks(scale_bits=0).quantize(w, layout())
    tensor = KquantBlocks(scale_bits=scale_bits).quantize(w, layout())
    assert sqnr_db(w, tensor) > sqnr_db(w, exact) - lost_db
    assert np.array_equal(tensor.stored_scale.values(), tensor.qparams.scale)
    assert np.array_equal(tensor.stored_offset.values(), tensor.offset)
    assert tensor.stored_scale.codes.max() < 1 << scale_bits
    assert np.abs(tensor.stored_offset.codes).max() < 1 << (scale_bits - 1)
    assert tensor.stored_scale.steps.shape == (64, 2)  # of 256 weights each


# -- HQQ -----------------------------------------------------------------------------------------


def test_shrinking_is_that_of_the_paper():
    x = np.array([2.0, -2.0, 0.1, 0.0])
    expected = 2 - 2 ** (0.7 - 1) / 10
    assert shrink(x, 10.0, 0.7) == pytest.approx([expected, -expected, 0, 0])


def test_each_iteration_of_hqq_leaves_a_block_no_further_off():
    w = laplace((16, 64))
    errors = []
    for count in range(6):
        found = HqqBlocks(iterations=count).quantize(w, layout(3)).dequantize()
        errors.append(np.abs(found - w).reshape(16, 2, 32).mean(axis=2))
    for before, after in pairwise(errors):
        assert np.all(after <= before * (1 + 1e-6))
    assert errors[-1].mean() < 0.98 * errors[0].mean()


@pytest.mark.parametrize("method", [HqqBlocks(), KquantBlocks()], ids=["hqq", "kquant"])
def test_rounding_the_offset_to_a_zero_point_would_cost_more_than_a_decibel(method):
    w = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    tensor = method.quantize(w, layout())
    scale = tensor.qparams.scale
    rounded = np.rint(tensor.offset / scale) * scale
    whole = BlockTensor(tensor.codes, tensor.qparams, offset=rounded)
    assert sqnr_db(w, tensor) > sqnr_db(w, whole) + 1


@pytest.mark.parametrize("bits", [4, 3])
def test_offsets_are_nearer_than_integer_zero_points(bits):
    w = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    integer = sqnr_db(w, quantize_blocks(w, layout(bits, symmetric=False)))
    for method in (HqqBlocks(), KquantBlocks()):
        assert sqnr_db(w, method.quantize(w, layout(bits))) > integer + 0.1


# -- the default ---------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_what_blocks_always_were(symmetric):
    w = laplace((5, 40))
    form = layout(symmetric=symmetric)
    one, other = MseBlocks().quantize(w, form), quantize_blocks(w, form)
    assert one.codes.tobytes() == other.codes.tobytes()
    assert one.qparams.scale.tobytes() == other.qparams.scale.tobytes()
