"""Weights that are stored in few bits are the same codes when the model is loaded."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq.graph.save import to_bytes
from ptq.graph.store_narrow import bits_of, store_narrow, stored_bytes
from ptq.graph.widen import widened
from ptq.numerics.qtype import QType

#: Bytes of names, nodes and tables of one constant, whatever the size of the weights in it.
NODES = 2000

LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]


def model_of(*weights):
    """Return a model that puts out its constants, which are called w0, w1, ..."""
    values, nodes = [], []
    for i, codes in enumerate(weights):
        value = ir.Value(name=f"w{i}", const_value=ir.tensor(codes, name=f"w{i}"))
        values.append(value)
        nodes.append(ir.node("Identity", [value], name=f"read{i}"))
        nodes[-1].outputs[0].name = f"y{i}"
        nodes[-1].outputs[0].type = ir.TensorType(value.const_value.dtype)
        nodes[-1].outputs[0].shape = ir.Shape(codes.shape)
    graph = ir.Graph([], [n.outputs[0] for n in nodes], nodes=nodes, initializers=values,
                     name="g", opset_imports={"": 21})  # fmt: skip
    return ir.Model(graph, ir_version=10)


def assert_read_back(model, weights):
    """Assert that the runtime, and who reads the file, find the codes that were written."""
    written = to_bytes(model)
    onnx.checker.check_model(onnx.load_model_from_string(written))
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        read = ort.InferenceSession(written, options).run(None, {})
        for found, codes in zip(read, weights, strict=True):
            np.testing.assert_array_equal(found, codes)
    again = widened(ir.from_proto(onnx.load_model_from_string(written)))
    assert {v.name for v in again.graph.initializers.values()} == set(names(weights))
    for name, codes in zip(names(weights), weights, strict=True):
        np.testing.assert_array_equal(again.graph.initializers[name].const_value.numpy(), codes)


def names(weights):
    return [f"w{i}" for i in range(len(weights))]


def uniform(rng, bits, shape):
    grid = QType(bits, signed=True)
    codes = rng.integers(grid.qmin, grid.qmax + 1, shape, dtype=np.int8)
    codes.flat[:2] = grid.qmin, grid.qmax
    return codes


def of_levels(rng, count, shape, channels=1, axis=0):
    """Return codes with so many levels, or with other ones in each channel."""
    tables = np.stack([rng.permutation(256)[:count] - 128 for _ in range(channels)])
    index = rng.integers(0, count, (shape[axis], *np.delete(shape, axis)))
    rows = np.arange(len(index)).reshape(-1, *[1] * (len(shape) - 1)) % channels
    return np.moveaxis(tables[rows, index], 0, axis).astype(np.int8)


@settings(max_examples=20)
@given(st.integers(1, 8), st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(0, 99))
def test_codes_of_all_widths_come_back(bits, rows, seed):
    rng = np.random.default_rng(seed)
    weights = [uniform(rng, bits, (count, 101)) for count in rows]
    model = model_of(*weights)
    store_narrow(model)
    assert_read_back(model, weights)


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_file_has_as_many_bits_a_weight_as_the_codes(bits):
    codes = uniform(np.random.default_rng(0), bits, (255, 513))
    model = model_of(codes)
    before = len(to_bytes(model))
    assert store_narrow(model) == 1
    assert_read_back(model, [codes])
    assert len(to_bytes(model)) <= before - codes.size * (8 - bits) // 8 + NODES


@pytest.mark.parametrize(
    ("levels", "bits"), [(1, 1), (2, 1), (3, 1.6), (4, 2), (5, 8 / 3), (6, 8 / 3), (7, 3), (8, 3),
                         (11, 4), (16, 4), (20, 5), (60, 6), (100, 7)]
)  # fmt: skip
def test_few_levels_anywhere_take_the_bits_of_their_indices(levels, bits):
    rng = np.random.default_rng(levels)
    codes = of_levels(rng, levels, (255, 513))
    model = model_of(codes)
    assert store_narrow(model) == 1
    assert_read_back(model, [codes])
    assert len(to_bytes(model)) <= codes.size * bits / 8 + NODES


@pytest.mark.parametrize("bits", [1, 3, 4, 6])
@pytest.mark.parametrize(
    ("shape", "axis"), [((64, 1001), 0), ((1001, 64), 1), ((64, 37, 3, 9), 0), ((9, 37, 3, 64), 3)]
)
def test_levels_of_each_channel_take_the_bits_of_their_indices(bits, shape, axis):
    codes = of_levels(np.random.default_rng(bits), 2**bits, shape, shape[axis], axis)
    model = model_of(codes)
    assert store_narrow(model) == 1
    assert_read_back(model, [codes])
    tables = shape[axis] * 2**bits
    assert len(to_bytes(model)) <= codes.size * bits / 8 + tables + NODES


@pytest.mark.parametrize(("levels", "bits"), [(3, 1.6), (5, 8 / 3), (6, 8 / 3)])
@pytest.mark.parametrize(("shape", "axis"), [((64, 1001), 0), ((1001, 64), 1)])
def test_indices_into_the_levels_of_each_channel_are_digits_too(levels, bits, shape, axis):
    codes = of_levels(np.random.default_rng(levels), levels, shape, 64, axis)
    model = model_of(codes)
    assert store_narrow(model) == 1
    assert_read_back(model, [codes])
    assert len(to_bytes(model)) <= codes.size * bits / 8 + 64 * levels + NODES


def test_weights_of_many_kinds_share_a_model():
    rng = np.random.default_rng(0)
    ternary = np.array([-1, 0, 1], np.int8)
    weights = [
        *(uniform(rng, bits, (99, 83)) for bits in (1, 2, 3, 3, 4, 4, 5, 6, 7, 8)),
        *(rng.choice(ternary, (200, 200)) for _ in range(2)),
        rng.choice(np.array([-8, -2, -1, 0, 1, 2, 8], np.int8), (99, 77)),
        rng.choice(np.array([-8, -2, -1, 1, 2, 8], np.int8), (99, 77)),
        of_levels(rng, 4, (64, 500), 64),
        of_levels(rng, 16, (500, 64), 64, axis=1),
    ]
    model = model_of(*weights)
    assert store_narrow(model) == len(weights) - 1  # but that of eight bits
    assert_read_back(model, weights)


def test_many_small_weights_cost_less_together():
    rng = np.random.default_rng(0)
    weights = [uniform(rng, 2, (12, 16)) for _ in range(20)]
    assert store_narrow(model_of(weights[0])) == 0
    together, wide = model_of(*weights), model_of(*weights)
    assert store_narrow(together) == 20
    assert len(to_bytes(together)) < len(to_bytes(wide))


@pytest.mark.parametrize("bits", [2, 3])
def test_large_constants_are_cut_between_weights(monkeypatch, bits):
    monkeypatch.setattr("ptq.graph.store_narrow._MOST_NUMBERS", 12_000)
    rng = np.random.default_rng(0)
    # the third is larger than that by itself, and no multiple of what is unpacked together
    weights = [uniform(rng, bits, (rows, 101)) for rows in (50, 60, 151, 40)]
    model = model_of(*weights)
    assert store_narrow(model) == 4
    assert_read_back(model, weights)
    largest = max(v.const_value.nbytes for v in model.graph.initializers.values())
    assert largest <= 151 * 101 * 2 / 8 + 1


def test_the_second_of_two_forms_of_levels_is_a_part_of_the_first():
    # 7 and 6 of the same levels: both of three bits, so that one table does
    rng = np.random.default_rng(0)
    seven = np.array([-64, -16, -4, 0, 4, 16, 64], np.int8)
    model = model_of(rng.choice(seven, (99, 99)), rng.choice(seven[seven != 0], (99, 99)))
    store_narrow(model)
    tables = [v for v in model.graph.initializers.values() if "levels" in v.name]
    assert [v.const_value.shape.numpy() for v in tables] == [(7,)]


def test_a_second_run_changes_nothing():
    rng = np.random.default_rng(0)
    model = model_of(uniform(rng, 3, (90, 90)), of_levels(rng, 4, (90, 900), 90))
    store_narrow(model)
    once = to_bytes(model)
    assert store_narrow(model) == 0
    assert to_bytes(model) == once


@pytest.mark.parametrize(
    "codes",
    [
        np.random.default_rng(0).integers(-128, 128, (400, 500), dtype=np.int8),  # eight bits
        np.zeros((4, 4), np.int8),  # the nodes would be larger
        np.zeros(8000, np.int8),  # a vector: zero points are one
        np.zeros((90, 90), np.uint8),
    ],
)
def test_other_constants_stay(codes):
    assert store_narrow(model_of(codes)) == 0


@given(st.integers(-128, 127))
def test_bits_are_those_of_the_least_grid(code):
    grids = [QType(bits, signed=True) for bits in range(1, 9)]
    least = next(g.bits for g in grids if g.qmin <= code <= g.qmax)
    assert bits_of(np.array([code], np.int8)) == least


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("size", [40, 4000])
def test_what_a_weight_takes_is_known_before_it_is_written(bits, size):
    rng = np.random.default_rng(0)
    count = 8
    weights = [uniform(rng, bits, (size // 8, 8)) for _ in range(count)]
    model, bare = model_of(*weights), model_of(*[np.zeros((1, 1), np.int8)] * count)
    store_narrow(model)
    taken = len(to_bytes(model)) - len(to_bytes(bare)) + count
    # what they have in common is not counted
    assert taken == pytest.approx(count * stored_bytes(size, bits), abs=NODES, rel=0.01)
