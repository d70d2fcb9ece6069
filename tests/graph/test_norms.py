"""Layer norms are found, as one operator and written out, and change by what is asked for."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support.models import load, random_feed, run

from ptq.graph.norms import NormTweak, find_norms, output_of, tweak_norms

#: Written out: x less its mean, divided by its deviation, times g, plus h.
CENTRED = "m = ReduceMean (x, last) d = Sub (x, m) p = Mul (d, d) v = ReduceMean (p, last)"

NORMS = {
    "operator": "y = LayerNormalization <axis = -1> (x, g, h)",
    "divided": f"{CENTRED} q = Sqrt (v) n = Div (d, q) a = Mul (n, g) y = Add (a, h)",
    "the other way round": f"{CENTRED} q = Sqrt (v) n = Div (d, q) a = Mul (g, n) y = Add (h, a)",
    "multiplied": f"""{CENTRED} q = Sqrt (v) r = Reciprocal (q) n = Mul (d, r) a = Mul (n, g)
        y = Add (a, h)""",
    "power": f"{CENTRED} q = Pow (v, half) n = Mul (d, q) a = Mul (n, g) y = Add (a, h)",
}

OTHERS = {
    "no shift": "y = LayerNormalization <axis = -1> (x, g)",
    "no norm": "n = Tanh (x) a = Mul (n, g) y = Add (a, h)",
    "read in between": f"""{CENTRED} q = Sqrt (v) n = Div (d, q) a = Mul (n, g) b = Add (a, h)
        y = Add (a, b)""",
    "one number": f"{CENTRED} q = Sqrt (v) n = Div (d, q) a = Mul (n, g) y = Add (a, last_value)",
}


def model_of(nodes: str) -> ir.Model:
    model = load(f"""
        g (float[N, 3, 5] x) => (float[N, 3, 5] y)
        <float[5] g, float[5] h, int64[1] last = {{-1}}, float half = {{-0.5}},
         float last_value = {{2}}> {{ {nodes} }}""")
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


@pytest.mark.parametrize("name", NORMS)
def test_the_output_becomes_what_is_asked_for(name):
    model, rng = model_of(NORMS[name]), np.random.default_rng(0)
    [norm] = find_norms(model)
    assert output_of(model, norm.name) == "y"
    feed = random_feed(model)
    [before] = run(model, feed)
    tweak = NormTweak(rng.uniform(0.5, 2, 5), rng.standard_normal(5))
    tweak_norms(model, {norm.name: tweak})
    onnx.checker.check_model(ir.to_proto(model))
    [after] = run(model, feed)
    # two constants and three results rounded, each to 2^-24
    np.testing.assert_allclose(after, before * tweak.factor + tweak.shift, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_norm_with_both_vectors_is_not_found(name):
    assert not find_norms(model_of(OTHERS[name]))


def test_vectors_that_others_read_stay_as_they_are_for_them():
    model = model_of("t = LayerNormalization <axis = -1> (x, g, h) s = Add (t, g) y = Add (s, h)")
    feed = random_feed(model)
    [before] = run(model, feed)
    tweak_norms(model, {"node0": NormTweak(np.ones(5), np.full(5, 3.0))})
    np.testing.assert_allclose(run(model, feed)[0], before + 3, atol=1e-5)
