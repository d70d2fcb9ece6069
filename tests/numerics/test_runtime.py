"""The codes are those of onnxruntime, to the bit; onnx's reference agrees."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx.reference import ReferenceEvaluator

from ptq.numerics.affine import QParams, dequantize, qparams_from_range, quantize
from ptq.numerics.qtype import INT8, INT16, UINT8, UINT16

QTYPES = [INT8, UINT8, INT16, UINT16]


@cache
def model(qtype, axis, block_size=0):
    """Q and DQ with scale and zero point as inputs, so that one session serves every example."""
    code = onnx.helper.np_dtype_to_tensor_dtype(qtype.storage)
    rank = {None: 1, 0: 2, 1: 2}[axis]
    shape = ["a", "b"][:rank]
    params = [] if axis is None else (["c", "d"] if block_size else ["c"])
    float_ = onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info
    attributes = {} if axis is None else {"axis": axis}
    if block_size:
        attributes["block_size"] = block_size
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
            onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
        ],
        "q",
        [info("x", float_, shape), info("s", float_, params), info("z", code, params)],
        [info("q", code, shape), info("y", float_, shape)],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )


@cache
def session(qtype, axis, block_size=0):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    made = model(qtype, axis, block_size).SerializeToString()
    return ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def check_same(run, x, params):
    codes, values = run(None, {"x": x, "s": params.scale, "z": params.zero_point})
    ours = quantize(x, params)
    assert ours.dtype == codes.dtype
    assert np.array_equal(ours, codes)
    # The bits but for the sign of zero, which some versions lose in int -> float.
    assert np.array_equal(dequantize(codes, params), values)


SCALES = st.floats(2.0**-126, 2.0**126, width=32)
#: Anything, NaN and infinity and subnormals included.
ANYTHING = st.floats(width=32)


@st.composite
def cases(draw):
    """Values of every magnitude, and values at and near the ties of the grid."""
    qtype = draw(st.sampled_from(QTYPES))
    scale = np.array(draw(SCALES), np.float32)
    zero_point = np.array(draw(st.integers(qtype.qmin, qtype.qmax)), qtype.storage)
    steps = draw(hnp.arrays(np.int32, 37, elements=st.integers(-70000, 70000)))
    with np.errstate(over="ignore"):
        ties = (steps / 2).astype(np.float32) * scale
        near = np.nextafter(ties, draw(st.sampled_from([np.float32(-1), np.float32(1)])))
    wild = draw(hnp.arrays(np.float32, 37, elements=ANYTHING))
    return np.concatenate([ties, near, wild]), QParams(scale, zero_point, qtype)


@given(cases())
def test_codes_per_tensor(case):
    x, params = case
    check_same(session(params.qtype, None).run, x, params)


@given(cases(), st.sampled_from([0, 1]), st.data())
def test_codes_per_axis(case, axis, data):
    x, params = case
    x = x[:110].reshape(10, 11)
    channels = x.shape[axis]
    scale = data.draw(hnp.arrays(np.float32, channels, elements=SCALES))
    scale[0] = params.scale
    bounds = st.integers(params.qtype.qmin, params.qtype.qmax)
    zero_point = data.draw(hnp.arrays(params.qtype.storage, channels, elements=bounds))
    check_same(session(params.qtype, axis).run, x, QParams(scale, zero_point, params.qtype, axis))


def test_codes_of_a_large_tensor():
    # Long enough for the vector instructions and for the remainder they leave.
    x = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)
    for qtype in QTYPES:
        for symmetric in (True, False):
            params = qparams_from_range(x.min() / 2, x.max(), qtype, symmetric=symmetric)
            check_same(session(qtype, None).run, x, params)


def test_codes_per_block():
    x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    scale = np.random.default_rng(2).uniform(0.01, 0.1, (3, 2)).astype(np.float32)
    params = QParams(scale, np.zeros((3, 2), np.int8), INT8, axis=1, block_size=4)
    check_same(session(INT8, 1, 4).run, x, params)


def test_subnormal_values_are_not_flushed():
    x = np.array([1e-45, 1e-40, 6e-39, -6e-39, 1.2e-38], np.float32)
    params = QParams(np.array(2.0**-126, np.float32), np.array(0, np.int8), INT8)
    check_same(session(INT8, None).run, x, params)
    assert quantize(x, params).tolist() == [0, 0, 1, -1, 1]


@pytest.mark.parametrize("qtype", QTYPES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_reference_of_onnx_agrees(qtype, axis):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(30 if axis is None else (5, 6)).astype(np.float32)
    count = () if axis is None else x.shape[axis]
    lo, hi = rng.uniform(-1, 0, count), rng.uniform(0.1, 1, count)
    params = qparams_from_range(lo, hi, qtype, symmetric=False, axis=axis)
    reference = ReferenceEvaluator(model(qtype, axis))
    check_same(reference.run, x, params)
