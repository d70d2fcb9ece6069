"""Weights that are stored in few bits are the same codes when the model is loaded."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq.graph.save import to_bytes
from ptq.graph.store_narrow import bits_of, store_narrow
from ptq.numerics.qtype import QType


def model_of(codes):
    """Return a model that puts out its only constant."""
    value = ir.Value(name="w", const_value=ir.tensor(codes, name="w"))
    value.type, value.shape = ir.TensorType(ir.DataType.INT8), ir.Shape(codes.shape)
    node = ir.node("Identity", [value], name="read")
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.INT8)
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[value], name="g",
                     opset_imports={"": 21})  # fmt: skip
    return ir.Model(graph, ir_version=10)


def run(model):
    return ort.InferenceSession(to_bytes(model)).run(None, {})[0]


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(100, 110), st.integers(0, 99), st.data())
def test_codes_come_back_in_the_runtime(bits, rows, seed, data):
    grid = QType(bits, signed=True)
    least = data.draw(st.integers(grid.qmin, 0))
    codes = np.random.default_rng(seed).integers(least, grid.qmax + 1, (rows, 101), dtype=np.int8)
    model = model_of(codes)
    assert store_narrow(model) == 1
    np.testing.assert_array_equal(run(model), codes)
    stored = model.graph.initializers["w"].const_value
    # whole bytes for every bit of all codes
    assert stored.nbytes <= codes.size * bits / 8 + bits


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_file_has_as_many_bits_a_weight_as_the_codes(bits):
    grid = QType(bits, signed=True)
    codes = np.random.default_rng(0).integers(grid.qmin, grid.qmax + 1, (256, 512), dtype=np.int8)
    model = model_of(codes)
    before = len(to_bytes(model))
    store_narrow(model)
    nodes = 1000  # names and nodes, whatever the size of the weight
    assert len(to_bytes(model)) <= before - codes.size * (8 - bits) // 8 + nodes


def test_a_second_run_changes_nothing():
    model = model_of(np.random.default_rng(0).integers(-4, 4, (90, 90), dtype=np.int8))
    store_narrow(model)
    once = to_bytes(model)
    assert store_narrow(model) == 0
    assert to_bytes(model) == once


@pytest.mark.parametrize(
    "codes",
    [
        np.full((90, 90), -128, np.int8),  # eight bits
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
