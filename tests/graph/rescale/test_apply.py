"""Rescaling keeps the function of a graph, and of its groups finds those that can be rescaled."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import assert_close, load, random_feed, run

from ptq.errors import ModelError
from ptq.graph.check import Signature
from ptq.graph.rescale.apply import apply_factors, decode, encode
from ptq.graph.rescale.groups import find_groups

#: Of the largest output. Each product is of three numbers rounded once more (3 * 2^-24 relative),
#: under a hundred of them are summed, and random signs cancel no more than a hundredfold.
TOLERANCE = 3e-5

IMAGE = "(float[N, 3, 9, 9] x) => (float[N, M, H, W] y)"
ROWS = "(float[N, 7, 5] x) => (float[N, 7, K] y)"

#: Input, shapes of the weights beside a bias ``float[4] b``, and the nodes, ``y`` last.
CHAINS = {
    "straight": (IMAGE, "[4,3,3,3] w, [6,4,1,1] v", "t = Conv (x, w, b) y = Conv (t, v)"),
    "relu": (IMAGE, "[4,3,3,3] w, [6,4,3,3] v", "t = Conv (x, w, b) u = Relu (t) y = Conv (u, v)"),
    "prelu": (
        IMAGE,
        "[4,3,3,3] w, [6,4,3,3] v, [4,1,1] slope",
        "t = Conv (x, w, b) u = PRelu (t, slope) y = Conv (u, v)",
    ),
    "leaky relu": (
        IMAGE,
        "[4,3,3,3] w, [6,4,3,3] v",
        "t = Conv (x, w, b) u = LeakyRelu <alpha = 0.1> (t) y = Conv (u, v)",
    ),
    "no bound": (
        IMAGE,
        "[4,3,3,3] w, [6,4,1,1] v",
        "t = Conv (x, w, b) u = Clip (t, zero) y = Conv (u, v)",
    ),
    "depthwise": (
        IMAGE,
        "[4,3,3,3] w, [4,1,3,3] d, [6,4,1,1] v",
        """t = Conv (x, w, b) u = Relu (t) p = Conv <group = 4, pads = [1, 1, 1, 1]> (u, d)
           q = Relu (p) y = Conv (q, v)""",
    ),
    "groups": (
        IMAGE,
        "[4,3,3,3] w, [6,2,3,3] d, [5,6,1,1] v",
        "t = Conv (x, w, b) p = Conv <group = 2> (t, d) y = Conv (p, v)",
    ),
    "transposed": (
        IMAGE,
        "[3,4,3,3] w, [4,3,2,2] d, [5,6,1,1] v",
        """t = ConvTranspose (x, w, b) u = Relu (t) p = ConvTranspose <group = 2> (u, d)
           y = Conv (p, v)""",
    ),
    "pooled": (
        IMAGE,
        "[4,3,3,3] w, [6,4,1,1] v",
        """t = Conv (x, w, b) m = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (t)
           a = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (m)
           p = GlobalAveragePool (a) y = Conv (p, v)""",
    ),
    "residual": (
        IMAGE,
        "[4,3,1,1] w, [4,3,1,1] e, [4,4,3,3] d, [4,6,1,1] k, [6,4,1,1] v",
        """t = Conv (x, w, b) r = Relu (t) z = Conv (x, e) s = Add (r, z) h = Conv (s, v)
           l = Conv (h, k) n = Add (s, l) y = Conv (n, d)""",
    ),
    "shifted": (
        IMAGE,
        "[4,3,1,1] w, [4,1,1] c, [6,4,1,1] v",
        "t = Conv (x, w, b) s = Add (c, t) y = Conv (s, v)",
    ),
    "dense": (
        ROWS,
        "[5,4] w, [4,6] v",
        "t = MatMul (x, w) s = Add (t, b) u = Relu (s) y = MatMul (u, v)",
    ),
    "gemm": (
        "(float[N, 5] x) => (float[N, M] y)",
        "[4,5] w, [1,4] c, [4,6] v",
        """t = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, c) u = Relu (t)
           y = Gemm (u, v)""",
    ),
}

#: Graphs of the same kind through which no scale passes.
CLOSED = {
    "sigmoid": (
        IMAGE,
        "[4,3,3,3] w, [6,4,1,1] v",
        "t = Conv (x, w) u = Sigmoid (t) y = Conv (u, v)",
    ),
    "also an output": (IMAGE, "[4,3,3,3] w", "y = Conv (x, w, b)"),
    "read by another": (
        IMAGE,
        "[4,3,1,1] w, [4,4,1,1] v",
        "t = Conv (x, w) u = Conv (t, v) s = Exp (t) y = Add (u, s)",
    ),
    "bound from below": (
        IMAGE,
        "[4,3,3,3] w, [6,4,1,1] v",
        "t = Conv (x, w) u = Clip (t, six) y = Conv (u, v)",
    ),
    "a weight read twice": (
        IMAGE,
        "[3,3,1,1] w",
        "t = Conv (x, w) u = Relu (t) y = Conv (u, w)",
    ),
    "a sum with the input": (
        IMAGE,
        "[3,3,1,1] w, [4,3,1,1] v",
        "t = Conv (x, w) s = Add (t, x) y = Conv (s, v)",
    ),
    "its own reader": (
        IMAGE,
        "[4,3,1,1] w, [4,4,1,1] k, [6,4,1,1] v",
        "t = Conv (x, w) l = Conv (t, k) s = Add (t, l) y = Conv (s, v)",
    ),
    "a weight of the next": (
        "(float[3, 3] x) => (float[3, 3] y)",
        "[3,3] w, [3,3] v",
        "t = MatMul (x, w) y = MatMul (v, t)",
    ),
    "one shift for all": (
        IMAGE,
        "[4,3,1,1] w, [6,4,1,1] v",
        "t = Conv (x, w) s = Add (t, six) y = Conv (s, v)",
    ),
    "places of the largest": (
        IMAGE,
        "[4,3,1,1] w, [6,4,1,1] v",
        """t = Conv (x, w) m, i = MaxPool <kernel_shape = [2, 2]> (t) c = Conv (m, v)
           f = Cast <to = 1> (i) r = ReduceMax (f) y = Add (c, r)""",
    ),
    "inside a branch": (
        IMAGE,
        "[4,3,1,1] w, [6,4,1,1] v, [1] k",
        """t = Conv (x, w) q = ReduceMax <keepdims = 0> (x) o = Greater (q, six) c = Conv (t, v)
           z = If (o) <then_branch = h1 () => (float[] a) { a = ReduceMax <keepdims = 0> (t) },
                       else_branch = h2 () => (float[] a2) { a2 = ReduceMax <keepdims = 0> (c) }>
           y = Add (c, z)""",
    ),
}


def graph(chain: tuple[str, str, str]) -> ir.Model:
    signature, weights, nodes = chain
    declared = ", ".join(f"float{weight}" for weight in weights.split(", "))
    return load(f"""
        g {signature}
        <{declared}, float[4] b, float zero = {{0}}, float six = {{6}}> {{
          {nodes}
        }}""")


def inner_values(model: ir.Model, feed) -> dict[str, np.ndarray]:
    """Return the values of every tensor that a node of the main graph makes."""
    opened = model.clone()
    made = [v for n in opened.graph for v in n.outputs if v not in opened.graph.outputs]
    for value in made:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    opened.graph.outputs.extend(made)
    names = [v.name for v in opened.graph.outputs]
    return dict(zip(names, run(opened, feed), strict=True))


@pytest.mark.parametrize("chain", CHAINS)
@given(seed=st.integers(0, 99))
def test_the_function_stays_and_the_tensors_are_divided(chain, seed):
    model = graph(CHAINS[chain])
    rng, feed, groups = np.random.default_rng(seed), random_feed(model, seed), find_groups(model)
    factors = {g.name: np.exp2(rng.integers(-24, 25, g.channels) / 8) for g in groups}
    signature, before = Signature.of(model), inner_values(model, feed)
    apply_factors(model, {name: encode(s) for name, s in factors.items()})
    assert Signature.of(model) == signature
    onnx.checker.check_model(ir.to_proto(model))
    after = inner_values(model, feed)
    assert_close([before["y"]], [after["y"]], TOLERANCE)
    assert groups
    for group in groups:
        scale = factors[group.name]
        for tensor in (value.name for value in group.tensors):
            ones = (1,) * (before[tensor].ndim - 2) if group.axis == 1 else ()
            divided = before[tensor] / scale.reshape(-1, *ones)
            largest = np.abs(divided).max()
            np.testing.assert_allclose(after[tensor], divided, atol=TOLERANCE * largest, rtol=1e-4)


@pytest.mark.parametrize("chain", CLOSED)
def test_a_scale_does_not_pass(chain):
    assert not find_groups(graph(CLOSED[chain]))


def test_a_sum_ties_what_it_adds():
    first, *rest = find_groups(graph(CHAINS["residual"]))
    assert first.name == "t"
    assert {e.node.outputs[0].name for e in first.makers} == {"t", "z", "l"}
    assert {v.name for v in first.tensors} == {"t", "r", "z", "s", "l", "n"}
    assert len(first.readers) == 2
    assert [g.name for g in rest] == ["h"]


def test_a_bound_is_a_limit_of_what_it_bounds():
    chain = (
        IMAGE,
        "[4,3,3,3] w, [6,4,1,1] v",
        "t = Conv (x, w) u = Clip (t, zero, six) y = Conv (u, v)",
    )
    [group] = find_groups(graph(chain))
    assert group.limits == {"t": 6.0}


def test_a_bias_that_others_read_is_copied():
    weights = "[4,3,1,1] w, [4,3,1,1] e, [6,4,1,1] v"
    nodes = """t = Conv (x, w, b) p = Conv (t, v) r = Conv (x, e, b) s = Exp (r)
               y = Concat <axis = 1> (p, s)"""
    model = graph((IMAGE, weights, nodes))
    feed = random_feed(model)
    before = run(model, feed)
    [group] = find_groups(model)
    apply_factors(model, {group.name: encode(np.array([2.0, 4.0, 0.5, 1.0]))})
    assert_close(before, run(model, feed), TOLERANCE)


@given(st.lists(st.integers(-120, 120), min_size=1))
def test_factors_survive_as_text(steps):
    scale = np.exp2(np.array(steps) / 8)
    np.testing.assert_array_equal(decode(encode(scale)), scale)


@given(st.floats(2.0**-15, 2.0**15))
def test_the_nearest_factor_is_kept(scale):
    [kept] = decode(encode(np.array([scale])))
    assert abs(np.log2(kept / scale)) <= 1 / 16 + 1e-9  # half a step of an eighth


@pytest.mark.parametrize(
    "factors", [{"nothing": "AAAA"}, {"t": "AAAA"}, {"t": "no base64"}, {"t": ""}]
)
def test_factors_of_another_model_are_refused(factors):
    with pytest.raises(ModelError, match=f"'{next(iter(factors))}' do not fit this model"):
        apply_factors(graph(CHAINS["relu"]), factors)
