"""Gates computed apart, and inputs cut where gates are shut, leave the function as it is."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.models import assert_close, load, op_types, random_feed, run

from ptq.errors import ModelError
from ptq.graph.check import Signature
from ptq.graph.rescale.apply import encode
from ptq.graph.rescale.gates import apply_gates, find_cut, find_gated

#: Of the largest output: weights and their products rounded a few times more (2^-24 each), some
#: dozen products a sum, of which signs cancel no more than a hundredfold.
TOLERANCE = 2e-5


def model_of(channels: int, *, bias: bool, readers: int = 1, depthwise_maker: bool = False):
    """Return convolution, HardSwish, and depthwise convolutions of which the results are added."""
    inputs, per = (channels, 1) if depthwise_maker else (3, 3)
    group = channels if depthwise_maker else 1
    declared = [f"float[{channels},{per},3,3] w", f"float[{channels}] b"]
    declared += [f"float[{channels},1,3,3] v{i}" for i in range(readers)]
    named = ", b" if bias else ""
    sums = [f"s{i} = Add (s{i - 1}, d{i})" for i in range(1, readers)]
    depth = [
        f"d{i} = Conv <group = {channels}, pads = [1, 1, 1, 1]> (h, v{i})" for i in range(readers)
    ]
    nodes = "\n".join([*depth, "s0 = Identity (d0)", *sums])
    return load(f"""
        g (float[N, {inputs}, 5, 6] x) => (float[N, {channels}, H, W] s{readers - 1})
        <{", ".join(declared)}> {{
          t = Conv <group = {group}, strides = [2, 1], pads = [1, 1, 1, 1]> (x, w{named})
          h = HardSwish (t)
          {nodes}
        }}""")


def inner(model: ir.Model, name: str, feed) -> np.ndarray:
    """Return an inner tensor."""
    opened = model.clone()
    [value] = [v for n in opened.graph for v in n.outputs if v.name == name]
    value.type = ir.TensorType(ir.DataType.FLOAT)
    opened.graph.outputs[:] = [value]
    return run(opened, feed)[0]


@given(
    channels=st.integers(1, 6),
    bias=st.booleans(),
    readers=st.integers(1, 2),
    depthwise_maker=st.booleans(),
    cut=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_function_stays(channels, bias, readers, depthwise_maker, cut, seed):
    model = model_of(channels, bias=bias, readers=readers, depthwise_maker=depthwise_maker)
    feed = random_feed(model, seed)
    x = inner(model, "t", feed)
    below = np.minimum(np.maximum(-x.min(axis=(0, 2, 3)), 0), 3)
    sizes = np.maximum(x.max(axis=(0, 2, 3)), below)
    scale = np.maximum(sizes, 1e-3) * 2 ** (1 / 16)
    signature, before = Signature.of(model), run(model, feed)
    apply_gates(model, {"h": encode(scale)}, cut=cut)
    assert Signature.of(model) == signature
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    assert_close(before, run(model, feed), TOLERANCE)
    assert_close(before, ReferenceEvaluator(proto).run(None, dict(feed)), TOLERANCE)


def test_from_a_factor_of_three_on_it_stays_for_any_input():
    model = model_of(3, bias=True)
    scale = np.array([3.0, 10.0, 100.0]) * 2 ** (1 / 16)
    feed = {"x": random_feed(model)["x"] * 50}
    before = run(model, feed)
    apply_gates(model, {"h": encode(scale)}, cut=False)
    assert_close(before, run(model, feed), TOLERANCE)


def test_all_channels_fill_one_range():
    model = model_of(4, bias=True)
    feed = random_feed(model)
    x, h = inner(model, "t", feed), inner(model, "h", feed)
    scale = np.exp2(np.array([24, 16, 8, 0]) / 8)
    apply_gates(model, {"h": encode(scale)}, cut=False)
    divided = h / scale.reshape(4, 1, 1)
    made = inner(model, "h", feed)
    # where the factor is less than 3 and x below it, the cut shows
    inside = x > -scale.reshape(4, 1, 1)
    np.testing.assert_allclose(made[inside], divided[inside], rtol=1e-6, atol=1e-6)
    sixth = x / (6 * scale.reshape(4, 1, 1))
    np.testing.assert_allclose(inner(model, "t", feed), sixth, rtol=1e-6, atol=1e-6)
    assert inner(model, "t/cut", feed).min() >= np.float32(-1 / 6)


def test_nodes_keep_their_names_and_the_product_takes_the_place_of_the_gate():
    model = model_of(4, bias=False)
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    names = [node.name for node in model.graph]
    apply_gates(model, {"h": encode(np.full(4, 2.0))}, cut=True)
    assert op_types(model) == ["Conv", "Conv", "Clip", "Clip", "Mul", "Conv", "Identity"]
    assert set(names) <= {node.name for node in model.graph}
    assert len({node.name for node in model.graph}) == len(model.graph)
    assert not find_gated(model)
    assert not find_cut(model)


def test_cutting_alone_changes_no_bit():
    model = model_of(4, bias=True)
    feed = {"x": random_feed(model)["x"] * 10}
    before = run(model, feed)
    assert inner(model, "t", feed).min() < -3
    apply_gates(model, {}, cut=True)
    assert inner(model, "t/cut", feed).min() == -3
    assert_close(before, run(model, feed), 0.0)
    assert op_types(model)[:3] == ["Conv", "Clip", "HardSwish"]


@pytest.mark.parametrize(
    ("nodes", "cut"),
    [
        ("t = Conv (x, w) y = HardSwish (t)", 1),  # an output of the model
        ("t = Conv (x, w) h = HardSwish (t) y = Conv (h, v)", 1),  # not depthwise
        ("t = Conv (x, w) h = HardSwish (t) y = Add (t, h)", 0),  # others read what goes in
        ("t = Relu (x) h = HardSwish (t) y = Conv <group = 3> (h, u)", 0),  # no convolution
        ("t = Conv (x, w) h = HardSigmoid (t) y = Conv <group = 3> (h, u)", 0),
    ],
)
def test_where_it_cannot_be_done_no_gate_is_found(nodes, cut):
    model = load(f"""
        g (float[N, 3, 4, 4] x) => (float[N, 3, H, W] y)
        <float[3,3,1,1] w, float[3,3,1,1] v, float[3,1,1,1] u> {{ {nodes} }}""")
    assert not find_gated(model)
    assert len(find_cut(model)) == cut


@pytest.mark.parametrize("factors", [{"x": "AAAA"}, {"h": "AAA="}, {"h": "?"}])
def test_factors_of_another_model_are_refused(factors):
    with pytest.raises(ModelError, match=f"'{next(iter(factors))}' do not fit this model"):
        apply_gates(model_of(3, bias=True), factors, cut=True)
