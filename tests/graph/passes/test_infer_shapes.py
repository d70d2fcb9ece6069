"""Shapes come from the inputs, and not from what the file says about inner tensors."""

import onnx
import onnx_ir as ir
import pytest
from support.models import load, node_of

from ptq.graph.passes.infer_shapes import InferShapes

CONV = """
    g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) <float[4, 3, 3, 3] w> {
      h = Conv (x, w)
      y = Relu (h)
    }"""


def test_shapes_and_types_are_inferred():
    model = load(CONV)
    assert InferShapes()(model).count == 1
    value = node_of(model, "Conv").outputs[0]
    assert value.shape == ir.Shape(["N", 4, 6, 6])
    assert value.dtype == ir.DataType.FLOAT
    assert InferShapes()(model).count == 0


def test_a_stale_shape_is_not_believed():
    model = load(CONV)
    value = node_of(model, "Conv").outputs[0]
    value.shape = ir.Shape([1, 4, 6, 6])
    assert InferShapes()(model).count == 1
    assert value.shape == ir.Shape(["N", 4, 6, 6])


def test_what_is_said_of_unknown_operators_is_kept():
    model = load("""
        <ir_version: 8, opset_import: ["" : 21, "my.domain" : 1]>
        g (float[N, 3] x) => (float[N, 5] y) {
          h = my.domain.Op (x)
          y = Relu (h)
        }""")
    model.graph[0].outputs[0].shape = ir.Shape(["N", 5])
    InferShapes()(model)
    assert model.graph[0].outputs[0].shape == ir.Shape(["N", 5])


def test_weights_are_not_copied():
    model = load(CONV)
    tensor = model.graph.initializers["w"].const_value
    InferShapes()(model)
    assert model.graph.initializers["w"].const_value is tensor


def test_small_constants_are_looked_at():
    model = load("""
        g (float[N, 12] x) => (float[A, B, C] y) <int64[3] shape = {0, 3, 4}> {
          h = Reshape (x, shape)
          y = Relu (h)
        }""")
    InferShapes()(model)
    assert node_of(model, "Reshape").outputs[0].shape == ir.Shape(["N", 3, 4])


@pytest.mark.parametrize("error", [RuntimeError, ValueError, onnx.shape_inference.InferenceError])
def test_a_model_that_defeats_inference_keeps_its_shapes(monkeypatch, error):
    def fail(*_, **__):
        raise error("no")

    model = load(CONV)
    value = node_of(model, "Conv").outputs[0]
    value.shape = ir.Shape(["N", 4, 6, 6])
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", fail)
    assert InferShapes()(model).count == 0
    assert value.shape == ir.Shape(["N", 4, 6, 6])
