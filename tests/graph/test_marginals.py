"""What batchnorms tell survives preparation, and follows values through the graph."""

import numpy as np
import pytest
from support.models import load
from support.nets import prepare, values

from ptq.graph.held import values_by_name
from ptq.graph.marginals import first_known, marginals, normals_of
from ptq.numerics.marginal import Normal

NET = """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y)
    <float[4, 4, 1, 1] w, float[4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var,
     float zero = {0}, float six = {6}> {
      c = Conv (x, w, b)
      t = BatchNormalization <epsilon = 0.25> (c, gamma, beta, mean, var)
      r = Clip (t, zero, six)
      y = Conv (r, w) }"""

#: Statements behind t, which is normal, and r = Relu(t).
OPERATORS = {
    "leaky": "y = LeakyRelu <alpha = 0.2> (t)",
    "swish": "y = HardSwish (t)",
    "gate": "y = HardSigmoid <alpha = 0.3> (t)",
    "sigmoid": "y = Sigmoid (t)",
    "tanh": "y = Tanh (r)",
    "shifted": "s = Mul (t, by) y = Add (s, to)",
    "quotient": "y = Div (t, by)",
    "from": "y = Sub (to, t)",
    "bounded": "y = Clip (t, zero, six)",
}

KNOWN = Normal(np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.7, 2.0]))


def test_mean_and_deviation_are_beta_and_gamma_of_the_tensor_that_lives_on():
    model = load(NET)
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    [(name, normal)] = normals_of(model).items()
    prepared = prepare(model)
    assert not [n for n in prepared.graph if n.op_type == "BatchNormalization"]
    assert name == "t"
    assert "t" in values_by_name(prepared.graph)
    np.testing.assert_array_equal(normal.mean, arrays["beta"])
    share = arrays["var"] / (arrays["var"] + 0.25)
    np.testing.assert_allclose(normal.std, np.abs(arrays["gamma"]) * np.sqrt(share), rtol=1e-6)


def test_constants_in_constant_nodes_are_read_too():
    text = """g (float[N, 2, H, W] x) => (float[N, 2, H, W] y) {
        s = Constant <value = float[2] {2.0, 3.0}> ()
        b = Constant <value = float[2] {0.5, -1.0}> ()
        y = BatchNormalization <epsilon = 0.0> (x, s, b, b, s) }"""
    [normal] = normals_of(load(text)).values()
    np.testing.assert_array_equal(normal.mean, [0.5, -1])
    np.testing.assert_array_equal(normal.std, [2, 3])


@pytest.mark.parametrize("name", OPERATORS)
def test_moments_behind_an_operator_are_those_of_samples(name):
    text = f"""g (float[N, 3, H, W] x) => (float[N, 3, H, W] y, float[N, 3, H, W] r)
        <float[1, 3, 1, 1] by = {{2, -1, 0.5}}, float[3, 1, 1] to = {{1, 0, -3}},
         float zero = {{0}}, float six = {{6}}> {{
          t = Identity (x)
          r = Relu (t)
          {OPERATORS[name]} }}"""
    model = load(text)
    rng = np.random.default_rng(0)
    x = KNOWN.mean[:, None, None] + KNOWN.std[:, None, None] * rng.standard_normal((4, 3, 150, 150))
    sampled = values(model, {"x": x.astype(np.float32)}, ["y"])["y"]
    found = dict(marginals(model, {"t": KNOWN}))["y"]
    # 90 000 draws of deviation 4 or less, five standard errors
    np.testing.assert_allclose(found.mean, sampled.mean(axis=(0, 2, 3)), atol=5 * 4 / 300)
    np.testing.assert_allclose(found.std, sampled.std(axis=(0, 2, 3)), atol=0.05)
    ends = found.ends.T[:, None, :, None, None]
    assert (sampled >= ends[0] - 1e-5).all()
    assert (sampled <= ends[1] + 1e-5).all()


def test_sums_pools_and_concatenations_go_on_and_convolutions_end_it():
    text = """g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y, float[N, 6, 4, 4] k,
                                           float[N, 3, 1, 1] p)
        <float[3, 3, 1, 1] w, float scalar = {2}, float[1, 1, 4, 4] map> {
          t = Identity (x)
          r = Relu (t)
          s = Add (t, r)
          k = Concat <axis = 1> (t, r)
          p = GlobalAveragePool (r)
          d = Add (t, t)
          m = Mul (t, map)
          c = Conv (s, w)
          q = Mul (c, scalar)
          y = Add (q, m) }"""
    found = dict(marginals(load(text), {"t": KNOWN}))
    assert set(found) == {"t", "r", "s", "k", "p"}
    np.testing.assert_allclose(found["s"].mean, found["t"].mean + found["r"].mean)
    assert found["k"].mean.size == 6


def test_only_what_is_linear_in_the_input_comes_first():
    text = """g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y)
        <float[3, 3, 1, 1] w, float[1, 3, 1, 1] by> {
          s = Mul (x, by)
          a = Conv (s, w)
          r = Relu (a)
          y = Conv (r, w) }"""
    normals = {"a": KNOWN, "y": KNOWN}
    assert first_known(load(text), normals) == ["a"]
    assert first_known(load(text), {"y": KNOWN}) == []
