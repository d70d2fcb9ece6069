"""Smoothing keeps the function, folds where it can, and puts one Mul where it cannot."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import assert_close, load, op_types, random_feed, run

from ptq.errors import ModelError
from ptq.graph.check import Signature
from ptq.graph.passes.infer_shapes import InferShapes
from ptq.graph.rescale.apply import encode
from ptq.graph.rescale.smooth import apply_smoothing, find_smoothable, inserted

#: Of the largest output: products of three numbers rounded once more (3 * 2^-24 relative), a few
#: dozen of them summed, and random signs cancel no more than a hundredfold.
TOLERANCE = 2e-5

#: Weights, nodes that make ``y``, and whether no Mul is needed.
GRAPHS = {
    "norm": (
        "[5] g, [5] h, [5,4] w",
        "t = LayerNormalization <axis = -1> (x, g, h) y = MatMul (t, w)",
        True,
    ),
    "norm without bias": (
        "[5] g, [5,4] w",
        "t = LayerNormalization <axis = -1> (x, g) y = MatMul (t, w)",
        True,
    ),
    "norm written out": (
        "[5] g, [5] h, [5,4] w",
        """m = ReduceMean (x, last) d = Sub (x, m) p = Mul (d, d) v = ReduceMean (p, last)
           q = Sqrt (v) n = Div (d, q) a = Mul (n, g) t = Add (a, h) y = MatMul (t, w)""",
        True,
    ),
    "several readers": (
        "[5] g, [5] h, [5,4] w, [5,4] v, [5,4] u",
        """t = LayerNormalization <axis = -1> (x, g, h) q = MatMul (t, w) k = MatMul (t, v)
           r = MatMul (t, u) s = Add (q, k) y = Add (s, r)""",
        True,
    ),
    "dense": ("[5,6] v, [6,4] w", "t = MatMul (x, v) y = MatMul (t, w)", True),
    "dense with a bias": (
        "[5,6] v, [6] c, [6,4] w",
        "a = MatMul (x, v) t = Add (c, a) y = MatMul (t, w)",
        True,
    ),
    "multiplied": ("[5] g, [5,4] w", "a = Exp (x) t = Mul (g, a) y = MatMul (t, w)", True),
    "residual": (
        "[5] g, [5] h, [5,5] w",
        "t = LayerNormalization <axis = -1> (x, g, h) z = MatMul (t, w) y = Add (t, z)",
        False,
    ),
    "one number": ("[1] g, [5,4] w", "a = Erf (x) t = Mul (a, g) y = MatMul (t, w)", True),
    "attention": (
        "[5,6] v, [6] c, [6,4] w, [5,6] k",
        """a = MatMul (x, v) b = Add (a, c) r = Reshape (b, split)
           h = Transpose <perm = [0, 2, 1, 3]> (r) i = MatMul (x, k) j = Reshape (i, split)
           q = Transpose <perm = [0, 2, 1, 3]> (j) o = Transpose <perm = [0, 2, 3, 1]> (j)
           l = MatMul (q, o) p = Softmax <axis = -1> (l) m = MatMul (p, h)
           z = Transpose <perm = [0, 2, 1, 3]> (m) t = Reshape (z, joined)
           y = MatMul (t, w)""",
        True,
    ),
    "tanh": ("[5,4] w", "t = Tanh (x) y = MatMul (t, w)", False),
    "norm read twice": (
        "[5] g, [5] h, [5] k, [5,5] w",
        """n = Mul (x, g) t = Add (n, h) z = MatMul (t, w) y = Add (n, z)""",
        False,
    ),
}


def graph(weights: str, nodes: str) -> ir.Model:
    declared = ", ".join(f"float{weight}" for weight in weights.split(", "))
    model = load(f"""
        g (float[N, 3, 5] x) => (float[N, 3, M] y) <{declared}, int64[1] last = {{-1}},
         int64[4] split = {{0, 3, 3, 2}}, int64[3] joined = {{0, 3, 6}}> {{
          {nodes}
        }}""")
    InferShapes()(model)  # heads are told by shapes
    return model


@pytest.mark.parametrize("name", GRAPHS)
@given(seed=st.integers(0, 99))
def test_the_function_stays(name, seed):
    *text, folds = GRAPHS[name]
    model = graph(*text)
    tensors = {tensor.name: tensor for tensor in find_smoothable(model)}
    assert set(tensors) == {"t"}
    assert tensors["t"].folds == folds
    rng, feed = np.random.default_rng(seed), random_feed(model, seed)
    signature, before, types = Signature.of(model), run(model, feed), op_types(model)
    scale = np.exp2(rng.integers(-24, 25, tensors["t"].channels) / 8)
    assert list(inserted(model, {"t": ""})) == ([] if folds else ["t"])
    apply_smoothing(model, {"t": encode(scale)})
    assert Signature.of(model) == signature
    onnx.checker.check_model(ir.to_proto(model))
    assert_close(before, run(model, feed), TOLERANCE)
    assert len(op_types(model)) == len(types) + (not folds)


def test_what_layers_read_is_divided():
    model = graph(*GRAPHS["residual"][:2])
    feed = random_feed(model)
    scale = np.exp2(np.array([8, -8, 0, 16, 4]) / 8)
    apply_smoothing(model, {"t": encode(scale)})
    [matmul] = [node for node in model.graph if node.op_type == "MatMul"]
    divided, whole = (
        matmul.inputs[0],
        next(v for n in model.graph for v in n.outputs if v.name == "t"),
    )
    assert (divided.name, divided.producer().name) == ("t/smoothed", "t/smooth")
    model.graph.outputs[:] = [divided, whole]
    found, expected = run(model, feed)
    np.testing.assert_allclose(found, expected / scale, rtol=1e-6)  # of two roundings


@pytest.mark.parametrize(
    ("weights", "nodes"),
    [
        ("[4,3] v", "t = Tanh (x) y = MatMul (v, t)"),  # the weight is what is read
        ("[5,4] w", "y = MatMul (x, w)"),  # an input of the model
        ("[5,4] w", "t = Tanh (x) s = Exp (x) p = MatMul (t, w) q = MatMul (s, w) y = Add (p, q)"),
    ],
)
def test_what_cannot_be_divided_is_not_found(weights, nodes):
    assert not find_smoothable(graph(weights, nodes))


@pytest.mark.parametrize("factors", [{"x": "AAAA"}, {"t": "AAAA"}, {"t": "?"}])
def test_factors_of_another_model_are_refused(factors):
    with pytest.raises(ModelError, match=f"'{next(iter(factors))}' do not fit this model"):
        apply_smoothing(graph(*GRAPHS["tanh"][:2]), factors)
