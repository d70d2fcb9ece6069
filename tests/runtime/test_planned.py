"""Every planned node is said to run as what onnxruntime made of it, or why it does not."""

from pathlib import Path

import pytest
from support.nets import Settings, quantize, to_bytes

from ptq.graph.emit_integer import fuse_integer
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.planned import planned_layers

NET = """
g (float[N, 4, 8, 8] x, bool c) => (float[N, 4, 1, 1] y, float[N, 4, 8, 8] b)
<float[4, 4, 3, 3] w, float[4, 4, 1, 1] v, float zero = {0}, float six = {6}> {
  [first] t = Conv <pads = [1, 1, 1, 1]> (x, w)
  [relu] r = Relu (t)
  [second] k = Conv (r, v)
  [clip] l = Clip (k, zero, six)
  [sum] s = Add (l, r)
  [third] m = Conv (s, v)
  [tanh] h = Tanh (m)
  [pool] y = GlobalAveragePool (h)
  [choice] b = If (c) <
    then_branch = yes () => (float[N, 4, 8, 8] p) { [inner] p = Sigmoid (m) },
    else_branch = no () => (float[N, 4, 8, 8] q) { [copy] q = Identity (m) }
  >
}"""


def layers_of(quantized, folder: Path):
    path = folder / "model.onnx"
    path.write_bytes(to_bytes(quantized.model))
    ran = measure_coverage(path, quantized.site_names).layers
    return planned_layers(quantized.source, quantized.plan.nodes, ran)


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_every_node_of_the_float_model_is_named_once_in_order(tmp_path, form):
    quantized = quantize(NET)
    if form == "integer":
        fuse_integer(quantized.model)
    found = layers_of(quantized, tmp_path)
    planned = [node.name for node in quantized.plan.nodes]
    assert [layer.name for layer in found] == [*planned, "inner"]
    types = {node.name: node.op_type for node in quantized.source.graph.all_nodes()}
    assert {layer.name: layer.op_type for layer in found}.items() <= types.items()
    assert {layer.name for layer in found if layer.integer} == {
        *("first", "relu", "second", "clip", "sum", "third")
    }


def test_an_absorbed_activation_is_part_of_what_absorbed_it(tmp_path):
    found = {layer.name: layer for layer in layers_of(quantize(NET), tmp_path)}
    assert found["relu"].part_of == "first"
    assert found["clip"].part_of == "second"
    assert found["relu"].kernel == found["clip"].kernel == "QLinearConv"
    assert found["sum"].kernel == "QLinearAdd"


def test_the_reason_is_that_of_the_plan(tmp_path):
    settings = Settings(exclude=("second",))
    quantized = quantize(NET, settings=settings)
    found = {layer.name: layer for layer in layers_of(quantized, tmp_path)}
    assert found["second"].why == "excluded by --exclude"
    assert not found["second"].integer
    why = {node.name: node.why for node in quantized.plan.nodes}
    assert found["tanh"].why == why["tanh"] != ""
    assert found["pool"].why == why["pool"] != ""
    assert found["choice"].why == why["choice"] != ""


def test_inside_a_branch_the_reason_is_the_branch(tmp_path):
    found = {layer.name: layer for layer in layers_of(quantize(NET), tmp_path)}
    assert found["inner"].kernel == "Sigmoid"
    assert found["inner"].why == "it is inside an If or a Loop, which stay in float"


def test_what_computes_no_numbers_has_no_kernel(tmp_path):
    quantized = quantize("""
        g (float[N, 4, 2, 2] x) => (float[A, B] y) <float[4, 4, 1, 1] w, int64 at = {0},
          int64[1] axis = {0}, int64[1] rest = {-1}> {
          [conv] c = Conv (x, w)
          [shape] k = Shape (c) [size] n = Gather (k, at) [row] u = Unsqueeze (n, axis)
          [both] v = Concat <axis = 0> (u, rest)
          [flat] y = Reshape (c, v)
        }""")
    found = {layer.name: layer for layer in layers_of(quantized, tmp_path)}
    for name in {"shape", "size", "row", "both"} & found.keys():
        assert found[name].kernel == ""
        assert found[name].why == "it computes no numbers (shapes, positions, copies)"


def test_a_node_that_went_into_a_pattern_has_the_reason_of_the_pattern(tmp_path):
    quantized = quantize("""
        g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float two = {2}, float eps = {0.01},
          float[4] scale, float[4] bias, int64[1] last = {-1}> {
          [product] c = MatMul (x, w)
          [mean] m = ReduceMean (c, last) [centre] d = Sub (c, m) [square] p = Pow (d, two)
          [var] v = ReduceMean (p, last) [more] e = Add (v, eps) [root] r = Sqrt (e)
          [ratio] n = Div (d, r) [scaled] k = Mul (n, scale) [biased] y = Add (k, bias)
        }""")
    found = {layer.name: layer for layer in layers_of(quantized, tmp_path)}
    assert found["product"].integer
    for name in found.keys() - {"product"}:
        assert found[name].kernel == "LayerNormalization"
        assert found[name].why == "onnxruntime has no integer kernel for it"
        assert found[name].part_of == ("" if name == "biased" else "biased")
