"""Graphs as plain values."""

import pytest
from support.models import load

from ptq.graph.describe import Value, describe_values, opset_of, parameters

NET = """
    g (float[N, 3, 8, 8] x, int64 n, float16[2, 1] h) => (float[N, 4, H, W] y)
    <float[4, 3, 1, 1] w, float[4] b, int64[2] shape = {1, 2}> {
      y = Conv (x, w, b)
    }"""


def test_values_have_a_name_a_type_and_a_shape():
    model = load(NET)
    assert describe_values(model.graph.inputs) == (
        Value("x", "float", ("N", 3, 8, 8)),
        Value("n", "int64", ()),
        Value("h", "float16", (2, 1)),
    )


def test_what_is_unknown_is_a_question_mark():
    model = load(NET)
    [y] = model.graph.outputs
    y.shape = None
    assert describe_values([y]) == (Value("y", "float", None),)
    y.type = None
    assert describe_values([y]) == (Value("y", "?", None),)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_the_opset_is_that_of_the_standard_domain(domain):
    model = load(NET)
    model.opset_imports.clear()
    assert opset_of(model) == 0
    model.opset_imports.update({domain: 17, "com.microsoft": 1})
    assert opset_of(model) == 17


def test_parameters_are_floating_point_numbers():
    assert parameters(load(NET)) == 4 * 3 + 4
