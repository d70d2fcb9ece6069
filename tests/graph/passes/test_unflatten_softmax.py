"""Softmax of an old opset along the last axis ends up as one node."""

import onnx_ir as ir
import pytest
from support.models import check_rewrite, load, op_types, random_feed, run

from ptq.graph.normalize import normalize
from ptq.graph.passes.unflatten_softmax import UnflattenSoftmax


def flattened(axis, *, kind="Softmax", shape="Shape (i)"):
    model = load(f"""
        g (float[2, 3, 4] x) => (float[2, 3, 4] y) {{
          i = Neg (x)
          s = {shape}
          f = Flatten <axis = {axis}> (i)
          h = {kind} <axis = -1> (f)
          y = Reshape (h, s)
        }}""")
    model.graph[0].outputs[0].shape = ir.Shape([2, 3, 4])
    return model


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [2, -1])
def test_along_the_last_axis(kind, axis):
    model = check_rewrite(UnflattenSoftmax(), flattened(axis, kind=kind), count=1)
    assert model.graph[-1].inputs[0].name == "i"
    assert model.graph[-1].outputs[0].name == "y"


@pytest.mark.parametrize("axis", [0, 1])
def test_along_several_axes_stays(axis):
    check_rewrite(UnflattenSoftmax(), flattened(axis), count=0)


def test_of_unknown_rank_stays():
    model = flattened(2)
    model.graph[0].outputs[0].shape = None
    check_rewrite(UnflattenSoftmax(), model, count=0)


def test_to_another_shape_stays():
    assert UnflattenSoftmax()(flattened(2, shape="Shape (x)")).count == 0


@pytest.mark.parametrize("shape", ["[2, N]", "[2, 3, N]", "[A, B, C, 5]"])
def test_softmax_of_opset_11_becomes_one_node(shape):
    axis = shape.count(",")
    model = load(
        f"g (float{shape} x) => (float{shape} y) {{ y = Softmax <axis = {axis}> (x) }}", opset=11
    )
    [before] = run(model, feed := random_feed(model))
    normalize(model)
    assert op_types(model) == ["Softmax"]
    assert (run(model, feed)[0] == before).all()
