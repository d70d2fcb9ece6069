"""Emitted graphs conform to their target, and a graph that does not is found out."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import load, node_of, op_types
from support.nets import Settings, normal, quantize
from support.random_graphs import exact_feed, graphs

from ptq.graph.conform import conformance
from ptq.targets import load_target, target_names

DECLARED = """float[8, 3, 3, 3] stem, float[8] b, float[8, 8, 3, 3] w, float[8, 8, 1, 1] v,
    float[8, 1, 3, 3] d, float[16, 1, 3, 3] d2, float[8, 4, 3, 3] g, float[8, 10] fc, float[10] fb,
    float zero = {0}, float six = {6}"""

#: Networks of a kind, each with what targets differ in.
NETS = {
    "residual": """x1 = Conv <pads = [1, 1, 1, 1]> (x, stem, b) x2 = Relu (x1)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x2)
        c1 = Conv <pads = [1, 1, 1, 1]> (m, w, b) r1 = Relu (c1)
        c2 = Conv <pads = [1, 1, 1, 1]> (r1, w) s1 = Add (c2, m) a1 = Relu (s1)
        c3 = Conv (a1, v, b) c4 = Conv (c3, v) s2 = Add (c4, a1) a2 = Relu (s2)
        p = GlobalAveragePool (a2) f = Flatten (p) y = Gemm (f, fc, fb)""",
    "mobile": """x1 = Conv <pads = [1, 1, 1, 1]> (x, stem, b) x2 = Clip (x1, zero, six)
        c1 = Conv <group = 8, pads = [1, 1, 1, 1]> (x2, d, b) c2 = Clip (c1, zero, six)
        c3 = Conv (c2, v) c4 = Conv <group = 2, pads = [1, 1, 1, 1]> (c3, g, b)
        c5 = LeakyRelu (c4) c6 = Add (c5, c3) c7 = Conv (c6, v)
        p = GlobalAveragePool (c7) f = Flatten (p) y = Gemm (f, fc, fb)""",
    "branches": """x1 = Conv <pads = [1, 1, 1, 1]> (x, stem, b)
        l = Conv (x1, v, b) l1 = Relu (l) r = Conv (x1, v) r1 = Sigmoid (r)
        m = Mul (l1, r1) t = Conv <pads = [1, 1, 1, 1]> (m, w)
        k = Concat <axis = 2> (t, l1) o = Conv (k, v, b)
        p = AveragePool <kernel_shape = [16, 8]> (o) f = Flatten (p) y = Gemm (f, fc, fb)""",
    "softmax between": """x1 = Conv <pads = [1, 1, 1, 1]> (x, stem, b) s = Softmax <axis = 1> (x1)
        c = Conv (s, v) e = Erf (c) c2 = Conv (e, v, b)
        p = GlobalAveragePool (c2) f = Flatten (p) y = Gemm (f, fc, fb)""",
}
MATRICES = """g (float[2, 5, 12] x) => (float[2, 5, 8] y)
    <float[12, 16] w, float[16] b, float[2, 16, 8] batch, float[8, 8] v, float[8] c> {
        t = MatMul (x, w) u = Add (t, b) r = Relu (u) s = MatMul (r, batch)
        n = LayerNormalization <axis = -1> (s, c) y = MatMul (n, v)
    }"""
TARGETS = pytest.mark.parametrize("target", target_names())


def settings_of(target, **options):
    options = {"calib": "minmax", "weight_method": "minmax", "symmetric": False, **options}
    return Settings(target=load_target(target), **options)


def quantized(net, target, **options):
    text = f"g (float[N, 3, 8, 8] x) => (float[N, 10] y) <{DECLARED}> {{ {net} }}"
    return quantize(load(text), settings=settings_of(target, **options))


# -- what is emitted -------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_what_is_emitted_for_a_target_conforms_to_it(net, target, symmetric):
    found = quantized(NETS[net], target, weights_symmetric=symmetric)
    assert len([s for s in found.sites.sites if s.rule.role == "linear"]) >= 4
    assert conformance(found.model, load_target(target)) == ()


@TARGETS
def test_matrices_conform(target):
    found = quantize(MATRICES, settings=settings_of(target))
    assert len(found.sites.sites) >= 3
    assert conformance(found.model, load_target(target)) == ()


@TARGETS
def test_powers_of_two_and_one_scale_for_a_weight_conform(target):
    for options in ({"per_channel": False}, {"calib": "qcode", "weight_method": "qcode"}):
        found = quantized(NETS["residual"], target, **options)
        assert conformance(found.model, load_target(target)) == ()


@TARGETS
def test_the_small_network_conforms(target, digits):
    found = quantize(ir.load(digits.model), settings=settings_of(target))
    assert conformance(found.model, load_target(target)) == ()


@TARGETS
@settings(max_examples=20)
@given(graph=graphs(), excluded=st.lists(st.integers(0, 9), max_size=2))
def test_random_graphs_conform(target, graph, excluded):
    text, weights, tensors = graph
    kept = [(f"Conv:{tensors[i % len(tensors)]}", "kept") for i in excluded]
    found = quantize(
        text, weights, feeds=[exact_feed()], settings=settings_of(target, keep_float=tuple(kept))
    )
    assert conformance(found.model, load_target(target)) == ()


def test_of_a_residual_add_tensorrt_reads_one_operand_in_codes():
    """The other comes straight from a convolution, into which the Add is merged."""
    model = quantized(NETS["residual"], "tensorrt").model
    adds = [node for node in model.graph if node.op_type == "Add"]
    assert len(adds) == 2
    for add in adds:
        assert sorted(v.producer().op_type for v in add.inputs) == ["Conv", "DequantizeLinear"]


def test_only_onnxruntime_needs_operators_kept_apart():
    text = f"g (float[N, 3, 8, 8] x) => (float[N, 8, 8, 8] y) <{DECLARED}> {{ %s }}"
    body = "a = Conv <pads = [1, 1, 1, 1]> (x, stem) s = Sigmoid (a) y = Conv (s, v)"
    for target, count in (("ort-cpu-x86-vnni", 1), ("generic-qdq", 0)):
        kept = settings_of(target, keep_float=(("Sigmoid:s", "kept"),), op_types=())
        found = quantize(load(text % body), settings=kept)
        assert op_types(found.model).count("Sum") == count


# -- what does not conform -------------------------------------------------------------------------


def small(target="generic-qdq", **options):
    """Convolutions with an Add between them, quantized: every kind of tensor once or twice."""
    text = """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y)
    <float[4, 4, 1, 1] w, float[4] b, float[4, 1, 3, 3] d> {
        t = Conv (x, w, b) r = Relu (t) t2 = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d)
        s = Add (r, t2) y = Conv (s, w, b)
    }"""
    return quantize(load(text), settings=settings_of(target, **options)).model


def replace(model, name, array, dtype=None):
    """Give an initializer another value."""
    value = model.graph.initializers[name]
    array = np.asarray(array, dtype or value.const_value.numpy().dtype)
    value.const_value = ir.tensor(array, name=name)
    value.type = ir.TensorType(value.const_value.dtype)


def said_of(model, target="generic-qdq"):
    return " | ".join(conformance(model, load_target(target)))


def test_a_graph_of_one_target_is_told_from_that_of_another():
    model = small("ort-cpu-x86-vnni")
    assert said_of(model, "ort-cpu-x86-vnni") == ""
    said = said_of(model, "tensorrt")
    assert "activations are uint8; the target takes int8" in said
    assert "node 'Conv:t' (Conv): its bias is quantized; the target takes float" in said
    said = said_of(small("tensorrt"), "ort-cpu-x86-vnni")
    assert "activations are int8; the target takes uint8" in said
    assert "its bias is float; the target takes int32" in said
    assert "node 'Conv:t2' (Conv): its output is not quantized" in said


def test_a_zero_point_where_the_target_takes_none():
    model = small("tensorrt")
    replace(model, "x/zero_point", 3)
    said = "an activation has zero point 3; the target needs 0"
    assert f"node 'x/Q' (QuantizeLinear): {said}" in said_of(model, "tensorrt")


def test_activations_of_16_bits():
    model = small()
    replace(model, "x/zero_point", 3, np.uint16)
    assert "activations are uint16; the target takes uint8" in said_of(model)


def test_activations_with_a_scale_for_each_channel():
    model = small()
    for end, kind in (("scale", np.float32), ("zero_point", np.uint8)):
        replace(model, f"x/{end}", np.ones(4), kind)
    assert "node 'x/Q' (QuantizeLinear): an activation has more than one scale" in said_of(model)


def test_weights_of_another_type():
    model = small()
    for name in ("quantized", "zero_point"):
        replace(model, f"w/{name}", np.zeros_like(initializer(model, f"w/{name}")), np.uint8)
    assert "node 'Conv:t' (Conv): its weight is uint8; the target takes int8" in said_of(model)


def initializer(model, name):
    return model.graph.initializers[name].const_value.numpy()


def test_a_code_outside_of_a_narrow_grid():
    model = small()
    codes = initializer(model, "w/quantized").copy()
    codes[0, 0] = -128
    replace(model, "w/quantized", codes)
    assert "its weight has codes below -127" in said_of(model)


def test_weights_with_zero_points():
    model = small("ort-cpu-x86-vnni")
    for name in ("w", "d"):
        replace(model, f"{name}/zero_point", np.full(4, 2))
    said = said_of(model, "ort-cpu-x86-vnni")
    assert said == (
        "node 'Conv:t2' (Conv): its weight has zero points, with which depthwise kernels are slow"
    )
    assert "node 'Conv:t' (Conv): its weight has zero points; the target takes none" in said_of(
        model
    )


def test_scales_along_the_wrong_axis():
    model = small()
    node_of_weight(model, "w").attributes["axis"] = ir.AttrInt64("axis", 1)
    said = "the scales of its weight are along axis 1; channels are on 0"
    assert f"node 'Conv:t' (Conv): {said}" in said_of(model)


def node_of_weight(model, name):
    [node] = model.graph.initializers[f"{name}/quantized"].consumers()
    return node


def test_weights_in_blocks():
    model = small()
    node = node_of_weight(model, "w")
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    node.attributes["block_size"] = ir.AttrInt64("block_size", 2)
    for end in ("scale", "zero_point"):
        replace(model, f"w/{end}", np.ones((4, 2, 1, 1)))
    assert "its weight has a scale for each block of 2" in said_of(model)


def test_a_scale_for_each_channel_where_the_target_takes_one():
    text = """g (float[3, 4] x) => (float[3, 8] y) <float[4, 8] w, float[8] b> {
        y = Gemm (x, w, b)
    }"""
    model = quantize(text, settings=settings_of("ort-cpu-x86-vnni")).model
    said = "its weight has a scale for each channel; the target takes one"
    assert f"node 'Gemm:y' (Gemm): {said}" in said_of(model, "qnn")


def test_a_bias_of_another_scale():
    model = small()
    [name] = [n for n in model.graph.initializers if n.startswith("b/Conv:t/scale")]
    replace(model, name, initializer(model, name) * 2)
    said = "the scale of its bias is not that of activation times weight"
    assert f"node 'Conv:t' (Conv): {said}" in said_of(model)


def test_a_bias_that_is_not_int32():
    model = small()
    name = "b/Conv:t/zero_point"
    replace(model, name, initializer(model, name), np.int8)
    said = "its bias is not int32 without zero point"
    assert f"node 'Conv:t' (Conv): {said}" in said_of(model)


def test_a_quantized_weight_beside_a_float_activation():
    model = small()
    conv = next(n for n in model.graph if n.name == "Conv:t")
    conv.replace_input_with(0, model.graph.inputs[0])
    said = "its weight is quantized, its activation is not"
    assert f"node 'Conv:t' (Conv): {said}" in said_of(model)


def test_a_move_that_changes_the_scale():
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <float[4, 4, 1, 1] w> {
        t = Conv (x, w) u = Transpose <perm = [0, 1, 3, 2]> (t) y = Conv (u, w)
    }"""
    model = quantize(text, settings=settings_of("generic-qdq")).model
    assert said_of(model) == ""
    replace(model, "u/scale", initializer(model, "u/scale") * 2)
    said = "moves codes, but its output has another scale than its input"
    assert f"node 'Transpose:u' (Transpose): {said}" in said_of(model)


def test_an_attribute_that_the_kernel_does_not_take():
    text = """g (float[3, 4] x) => (float[3, 8] y) <float[4, 8] w, float[8] b> {
        y = Gemm (x, w, b)
    }"""
    model = quantize(text, settings=settings_of("ort-cpu-x86-vnni")).model
    node_of(model, "Gemm").attributes["alpha"] = ir.AttrFloat32("alpha", 2.0)
    said = "node 'Gemm:y' (Gemm): has alpha=2.0; the target needs 1.0"
    assert said in said_of(model, "ort-cpu-x86-vnni")


def test_a_clip_on_codes_where_the_target_runs_none():
    # one scale for both parts: the Relu of one does not end at the least code
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 12, 6] y)
    <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v> {
        s = Conv (x, w) t = Conv (x, v) r = Relu (t) c = Concat <axis = 2> (s, r) y = Conv (c, w)
    }"""
    w = normal((4, 4, 1, 1), 1)
    weights = {"w": w, "v": w * 2}
    model = quantize(text, weights, settings=settings_of("ort-cpu-x86-vnni")).model
    assert op_types(model).count("Clip") == 1
    assert said_of(model, "ort-cpu-x86-vnni") == ""
    said = "is followed by a Clip on codes, which the target does not run"
    assert f"(QuantizeLinear): {said}" in said_of(model)
    for target in ("generic-qdq", "tensorrt", "openvino", "qnn"):
        model = quantize(text, weights, settings=settings_of(target)).model
        assert op_types(model).count("Clip") == 0
        assert op_types(model).count("Relu") == 1


def test_an_operator_without_a_rule_among_conversions():
    target = "tensorrt"
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <float[4, 4, 1, 1] w> {
        s = Sigmoid (x) t = Conv (s, w) u = Sigmoid (t) y = Conv (u, w)
    }"""
    model = quantize(text, settings=settings_of(target)).model
    assert said_of(model, target) == ""
    conv = next(n for n in model.graph if n.name == "Conv:t")
    conv.op_type, conv.name = "ConvTranspose", "ConvTranspose:t"
    said = said_of(model, target)
    assert "node 'ConvTranspose:t' (ConvTranspose): reads quantized constants, but target" in said
    assert "stands at node 'Sigmoid:s' (Sigmoid), for which the target has no rule" in said


@pytest.mark.parametrize(
    ("shape", "group", "text"),
    [
        ((4, 4, 3, 3), 1, "y = Conv <pads = [1, 1, 1, 1]> (x, w)"),
        ((8, 1, 3, 3), 4, "y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)"),
        ((6, 9), 1, "y = Gemm (x, w)"),
        ((6, 9), 1, "y = Gemm <transB = 1> (x, w)"),
        ((6, 9), 1, "y = MatMul (x, w)"),
        ((2, 6, 9), 1, "y = MatMul (x, w)"),
    ],
)
def test_weights_whose_products_saturate(shape, group, text):
    inner = 9 if "transB" in text else shape[-2]
    rank = {2: f"5, {inner}", 3: f"2, 5, {inner}", 4: "1, 4, 6, 6"}[len(shape)]
    wide = ", ".join(map(str, shape))
    outputs = ", ".join("?" * len(shape))
    graph = f"g (float[{rank}] x) => (float[{outputs}] y) <float[{wide}] w> {{ {text} }}"
    # half of the largest and more: all neighbours are too large
    weights = {"w": np.abs(normal(shape, 1)).clip(1, 2)}
    said = "its weight has pairs of neighbours whose products saturate"
    for target, expected in (("ort-cpu-x86-vnni", True), ("ort-cpu-x86-avx2", False)):
        model = quantize(graph, weights, settings=settings_of(target)).model
        assert said_of(model, target) == ""
        assert (said in said_of(model, "ort-cpu-x86-avx2")) == expected


def test_depthwise_weights_never_saturate():
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 4, 4] y) <float[4, 1, 3, 3] w> {
        y = Conv <group = 4> (x, w)
    }"""
    weights = {"w": np.ones((4, 1, 3, 3), np.float32)}
    model = quantize(text, weights, settings=settings_of("ort-cpu-x86-avx2")).model
    assert initializer(model, "w/quantized").min() == 127
    assert said_of(model, "ort-cpu-x86-avx2") == ""


def test_a_float_graph_conforms_to_every_target():
    model = load(f"g (float[N, 3, 8, 8] x) => (float[N, 10] y) <{DECLARED}> {{ {NETS['mobile']} }}")
    for target in target_names():
        assert conformance(model, load_target(target)) == ()
