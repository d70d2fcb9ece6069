"""Which value of a quantized graph holds a float tensor, and what its codes stand for."""

import msgspec
import numpy as np
import pytest
from support.models import load

from ptq.graph.held import values_by_name
from ptq.graph.makers import makers
from ptq.graph.match import match, with_types
from ptq.graph.tensor_map import PROPERTY, named_codes, read_map, tensors_held, write_map
from ptq.graph.writer import label

FLOAT = """g (float[N,4] x) => (float[N,4] y) {
    a = Neg (x) b = Relu (a) c = Exp (b) y = Abs (c)
}"""

SCALES = "<float s = {0.5}, uint8 z = {3}, float t = {0.25}, uint8 w = {0}>"


def reference(text=FLOAT):
    return with_types(load(text))


def quantized(nodes, properties=None):
    header = '<ir_version: 8, opset_import: ["" : 21, "com.microsoft" : 1]>'
    model = load(f"{header} g (float[N,4] x) => (float[N,4] y) {SCALES} {{ {nodes} }}")
    model.metadata_props.update(properties or {})
    return model


def matched(nodes, properties=None):
    found = match(reference(), quantized(nodes, properties))
    held = {
        h.tensor: (h.value, None if h.params is None else float(h.params.scale), h.cut, h.shared)
        for h in found.held
    }
    return held, found.unmatched


def test_what_dequantize_linear_makes_is_held_as_its_codes():
    held, unmatched = matched(
        """a = Neg (x) b0 = Relu (a) q = QuantizeLinear (b0, s, z) b = DequantizeLinear (q, s, z)
        c = Exp (b) y = Abs (c)"""
    )
    assert held["b"] == ("q", 0.5, "q", False)
    assert held["a"] == ("a", None, "a", False)
    assert unmatched == ()


def test_what_quantize_linear_reads_is_held_as_what_its_readers_see():
    held, _ = matched(
        """a = Neg (x) b = Relu (a) q = QuantizeLinear (b, s, z) d = DequantizeLinear (q, s, z)
        c = Exp (d) y = Abs (c)"""
    )
    assert held["b"] == ("q", 0.5, "b", False)


def test_codes_of_a_relu_are_not_those_of_what_it_read():
    held, unmatched = matched(
        """a = Neg (x) q = QuantizeLinear (a, s, z) b = DequantizeLinear (q, s, z)
        c = Exp (b) y = Abs (c)"""
    )
    assert held["b"] == ("q", 0.5, "q", False)
    assert unmatched == ("a",)


def test_codes_go_to_the_relu_that_was_removed_without_renaming():
    held, unmatched = matched(
        """a = Neg (x) q = QuantizeLinear (a, s, z) d = DequantizeLinear (q, s, z)
        c = Exp (d) y = Abs (c)"""
    )
    assert held["b"] == ("q", 0.5, "a", False)
    assert unmatched == ("a",)


def test_an_input_is_compared_where_it_is_quantized():
    held, _ = matched("q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Abs (d)")
    assert held["x"] == ("q", 0.5, "x", False)
    assert "x" not in matched("a = Neg (x) y = Abs (a)")[0]


@pytest.mark.parametrize(
    ("codes", "scale"), [("b_quantized", "t"), ("b/quantized", "t"), ("b/quantized", "b/scale")]
)
def test_fused_codes_have_the_scale_of_the_kernel_that_reads_them(codes, scale):
    model = quantized(
        """q = QuantizeLinear (x, s, z) B = com.microsoft.QLinearSigmoid (q, s, z, s, z)
        C = com.microsoft.QLinearSigmoid (B, t, w, s, z) y = DequantizeLinear (C, s, z)"""
    )
    values = values_by_name(model.graph)
    values["B"].name = codes
    [held] = [h for h in match(reference(), model).held if h.tensor == "b"]
    assert (held.value, float(held.params.scale), int(held.params.zero_point)) == (codes, 0.25, 0)


def test_of_two_scales_of_the_same_codes_the_one_named_after_the_tensor_is_meant():
    model = quantized(
        """B = QuantizeLinear (x, s, z) C = com.microsoft.QLinearSigmoid (B, t, w, s, z)
        y = DequantizeLinear (C, s, z)"""
    )
    values_by_name(model.graph)["B"].name = "b/quantized"
    model.graph.initializers["s"].name = "b/scale"
    name, params = named_codes(values_by_name(model.graph), "b")
    assert (name, float(params.scale)) == ("b/quantized", 0.5)


MOVED = """q = QuantizeLinear (x, s, z) r = Identity (q) m = Identity (r)
    y = DequantizeLinear (m, s, z)"""


def test_codes_that_are_moved_keep_their_scale():
    model = quantized(MOVED)
    values_by_name(model.graph)["r"].name = "b_quantized"
    [held] = [h for h in match(reference(), model).held if h.tensor == "b"]
    assert float(held.params.scale) == 0.5


def test_the_map_says_what_shares_codes_and_with_which_scale():
    entries = {"b": "q", "c": ["q", 0.125, 7, "uint8"]}
    held, _ = matched(MOVED, {PROPERTY: msgspec.json.encode(entries).decode()})
    assert held["b"] == ("q", 0.5, "q", False)
    assert held["c"] == ("q", 0.125, "q", True)
    assert "x" not in held  # for all that names say, these codes are made of it for b


def test_codes_that_are_shared_belong_to_the_tensor_they_are_called_after():
    model = quantized(MOVED, {PROPERTY: '{"b": "x/quantized"}'})
    values_by_name(model.graph)["q"].name = "x/quantized"
    held = {h.tensor: h for h in match(reference(), model).held}
    assert (held["x"].value, held["x"].shared) == ("x/quantized", False)
    assert (held["b"].value, held["b"].shared) == ("x/quantized", True)


NONSENSE = ["", "[]", "no JSON", '{"b": 3}', '{"b": "gone"}']


@pytest.mark.parametrize("code", [999, -1])
@pytest.mark.parametrize("dtype", ["uint8", "int4", "float32"])
def test_an_entry_that_no_code_fits_is_passed_over(code, dtype):
    entries = {"b": ["q", 0.5, code, dtype]}
    model = quantized(MOVED, {PROPERTY: msgspec.json.encode(entries).decode()})
    assert read_map(model) == {}


@pytest.mark.parametrize("text", NONSENSE)
def test_a_map_that_makes_no_sense_is_passed_over(text):
    assert read_map(quantized(MOVED, {PROPERTY: text})) == {}


@pytest.mark.parametrize("fused", [True, False])
def test_the_map_holds_only_what_names_do_not_say(fused):
    before = quantized(
        """q = QuantizeLinear (x, s, z) b = DequantizeLinear (q, s, z)
        c = DequantizeLinear (q, t, w) d = Add (b, c) y = Abs (d)"""
    )
    values_by_name(before.graph)["q"].name = "b/quantized"
    held = tensors_held(before, ["b", "c"])
    assert {t: float(p.scale) for t, (_, p) in held.items()} == {"b": 0.5, "c": 0.25}
    after = before
    if fused:
        after = quantized(
            "q = QuantizeLinear (x, s, z) C = com.microsoft.QLinearAdd (q, s, z, q, t, w, s, z)"
            "y = DequantizeLinear (C, s, z)"
        )
        values_by_name(after.graph)["q"].name = "b/quantized"
    write_map(after, held)
    assert set(read_map(after)) == ({"c"} if fused else set())
    assert (PROPERTY in after.metadata_props) == fused
    if fused:
        assert float(read_map(after)["c"][1].scale) == 0.25


def test_a_scale_in_the_map_is_exact():
    scale = np.float32(0.1) / np.float32(3)
    before = quantized("q = QuantizeLinear (x, s, z) c = DequantizeLinear (q, t, w) y = Abs (c)")
    before.graph.initializers["t"].const_value = (
        load("g () => (float t) <float t> {}", {"t": np.asarray(scale)})
        .graph.initializers["t"]
        .const_value
    )
    held = tensors_held(before, ["c"])
    after = quantized(MOVED)
    write_map(after, held)
    codes, params = read_map(after)["c"]
    assert codes == "q"
    assert params.scale == scale
    assert params.scale.dtype == np.float32


def test_long_names_are_found_by_their_label():
    name = "a" * 100
    model = quantized(MOVED)
    values_by_name(model.graph)["r"].name = f"{label(name)}/quantized"
    assert named_codes(values_by_name(model.graph), name)[0] == f"{label(name)}/quantized"


def test_a_scale_that_is_computed_leaves_the_tensor_to_be_read_as_floats():
    held, _ = matched(
        """r = ReduceMax <keepdims = 0> (x) q = QuantizeLinear (x, r, z)
        b = DequantizeLinear (q, r, z) y = Abs (b)"""
    )
    assert held["b"] == ("b", None, "b", False)


def test_a_float_tensor_that_is_quantized_for_its_readers_is_their_fault():
    model = quantized(
        """a = Neg (x) b = Relu (a) q = QuantizeLinear (b, s, z) d = DequantizeLinear (q, s, z)
        c = Exp (d) y = Abs (c)"""
    )
    float_model = reference()
    for node in float_model.graph:
        node.name = f"{node.op_type}@"
    found = makers(float_model, model, match(float_model, model).held)
    assert found["b"].at_fault == ("Exp@",)
    assert found["b"].main == "Relu@"
    assert found["a"].at_fault == ()  # nothing of it is quantized
    assert found["y"].output


def test_codes_that_are_clipped_are_those_behind_the_clip():
    model = quantized(
        """q = QuantizeLinear (x, s, z) r = Clip (q, z) y = DequantizeLinear (r, s, z)"""
    )
    values = values_by_name(model.graph)
    values["q"].name, values["r"].name = "b/quantized", "b/clipped"
    assert named_codes(values_by_name(model.graph), "b")[0] == "b/clipped"
