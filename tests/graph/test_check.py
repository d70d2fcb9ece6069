"""The stage specs notice what they are there to notice."""

import pytest
from support.models import load

from ptq.errors import ModelError
from ptq.graph.check import Signature, after_normalize
from ptq.graph.normalize import normalize

BATCHNORM = """
    g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y)
    <float[4, 3, 1, 1] w, float[4] g, float[4] b, float[4] m, float[4] var> {
      h = Conv (x, w)
      y = BatchNormalization (h, g, b, m, var)
    }"""


def named(text):
    model = load(text)
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


def failure(model, signature=None):
    with pytest.raises(ModelError, match="internal error after normalize") as caught:
        after_normalize(model, signature or Signature.of(model))
    return str(caught.value)


def test_a_normalized_model_passes():
    model = load(BATCHNORM)
    signature = Signature.of(model)
    normalize(model)
    after_normalize(model, signature)


def test_a_batchnorm_that_was_left():
    assert "batchnorm 'node1' was not folded" in failure(named(BATCHNORM))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("y = Batch", "z = Neg (h) y = Batch", id="the convolution is read elsewhere"),
        pytest.param("h = Conv (x, w)", "v = Neg (w) h = Conv (x, v)", id="a computed weight"),
        pytest.param("h = Conv (x, w)", "i = Conv (x, w) h = Relu (i)", id="not directly behind"),
    ],
)
def test_a_batchnorm_that_must_stay(old, new):
    model = named(BATCHNORM.replace(old, new))
    after_normalize(model, Signature.of(model))


def test_a_constant_that_was_left():
    model = named("g (float x) => (float y) { c = Constant <value_float = 1.0> () y = Add (x, c) }")
    assert "node 'node0' is a Constant" in failure(model)


def test_nodes_without_names_of_their_own():
    model = named("g (float x) => (float y) { h = Neg (x) y = Neg (h) }")
    model.graph[1].name = "node0"
    assert "'node0' (Neg) has no name of its own" in failure(model)
    model.graph[1].name = ""
    assert "'' (Neg) has no name of its own" in failure(model)


def test_a_signature_that_changed():
    model = named("g (float a, float b) => (float y, float z) { y = Neg (a) z = Neg (b) }")
    before = Signature.of(model)
    assert before == Signature(("a", "b"), ("y", "z"))
    model.graph.outputs.reverse()
    assert "signature changed" in failure(model, before)


def test_inputs_with_a_value_are_no_part_of_the_signature():
    model = load("g (float[3] x, float[3] w) => (float[3] y) <float[3] v> { y = Add (x, w) }")
    model.graph.inputs[1].const_value = model.graph.initializers["v"].const_value
    model.graph.initializers["w"] = model.graph.inputs[1]
    assert Signature.of(model) == Signature(("x",), ("y",))
