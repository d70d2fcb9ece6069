"""Integer and float are told apart in the graph that onnxruntime made, layer by layer."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.models import parse, write
from support.nets import quantize, to_bytes

from ptq.errors import VerificationError
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.layer import Layer, count_layers

PARAMETERS = """
    float s = {0.05}, uint8 z = {128}, uint8 low = {0}, float s2 = {0.1},
    int8[4, 4, 1, 1] w, float[4] ws, int8[4] wz, int8[4, 4] m, float[4, 1] column,
    int16[4, 4, 1, 1] wide, int16[4] wide_z, float zero = {0}, float[4, 1, 1] array,
    float[4, 4] f, float[4] row, int64 one = {0}, int64[1] one_axis = {0}, int64[1] rest = {-1}"""

READ = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)"
WEIGHT = "v = DequantizeLinear <axis = 0> (w, ws, wz)"
MATRIX = "v = DequantizeLinear <axis = 1> (m, ws, wz)"


def covered(tmp_path: Path, body: str, sites, shape="1, 4, 8, 8"):
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(-99, 99, (4, 4, 1, 1)).astype(np.int8),
        "m": rng.integers(-99, 99, (4, 4)).astype(np.int8),
        "wide": rng.integers(-99, 99, (4, 4, 1, 1)).astype(np.int16),
        "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8),
        "wide_z": np.zeros(4, np.int16),
    }
    model = parse(f"g (float[{shape}] x) => (float y) <{PARAMETERS}> {{ {body} }}", weights)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return measure_coverage(path, sites)


def test_a_fused_convolution_is_integer(tmp_path):
    found = covered(
        tmp_path,
        f"""{READ} {WEIGHT} [site] t = Conv (d, v)
        p = QuantizeLinear (t, s2, z) y = DequantizeLinear (p, s2, z)""",
        ["site"],
    )
    assert found.unfused == ()
    assert found.integer["QLinearConv"] == 1
    assert found.floating == Counter()
    assert found.conversions == 2


#: Patterns that look quantized, and that onnxruntime runs in float (KERNELS section 1); every node
#: called "site..." is meant to be integer.
LEFT_FLOAT = {
    "no output scale": f"{READ} {WEIGHT} [site] y = Conv (d, v)",
    "no output scale, relu": f"{READ} {WEIGHT} [site] t = Conv (d, v) r = Relu (t) y = Sigmoid (r)",
    "relu above the lowest code": f"""{READ} {WEIGHT} [site] t = Conv (d, v) r = Relu (t)
        p = QuantizeLinear (r, s2, z) y = DequantizeLinear (p, s2, z)""",
    "16-bit weights": f"""{READ} v = DequantizeLinear <axis = 0> (wide, ws, wide_z)
        [site] t = Conv (d, v) p = QuantizeLinear (t, s2, z) y = DequantizeLinear (p, s2, z)""",
    "two readers of the float result": f"""{READ} {WEIGHT} [site] t = Conv (d, v)
        p = QuantizeLinear (t, s2, z) e = DequantizeLinear (p, s2, z) n = Neg (t) y = Add (e, n)""",
    "a float operand": f"""{READ} [site] t = Add (d, array)
        p = QuantizeLinear (t, s2, z) y = DequantizeLinear (p, s2, z)""",
    "another scale after a move": f"""{READ} [site] t = Transpose <perm = [0, 2, 3, 1]> (d)
        p = QuantizeLinear (t, s2, z) y = DequantizeLinear (p, s2, z)""",
    "no integer kernel": f"""{READ} [site] t = Tanh (d)
        p = QuantizeLinear (t, s2, z) y = DequantizeLinear (p, s2, z)""",
}


#: What is said of each of them: up to the first colon, for the rest names tensors.
WHY = {
    "no output scale": "its output has no QuantizeLinear",
    "no output scale, relu": "its output has no QuantizeLinear",
    "relu above the lowest code": "the Relu before its QuantizeLinear is not absorbed",
    "16-bit weights": "it reads codes of int16, not of 8 bits: 'v'",
    "two readers of the float result": "its output is read as float, too, before it is quantized",
    "a float operand": "one operand is not quantized: 'array'",
    "another scale after a move": "its output has another scale than its input",
    "no integer kernel": "onnxruntime has no integer kernel for it",
}


@pytest.mark.parametrize("name", LEFT_FLOAT)
def test_what_is_missing_is_said(tmp_path, name):
    found = {layer.name: layer for layer in covered(tmp_path, LEFT_FLOAT[name], []).layers}
    site = found["site"]
    assert not site.integer
    assert site.kernel
    assert site.why == WHY[name]


@pytest.mark.parametrize("name", LEFT_FLOAT)
def test_a_pattern_that_onnxruntime_leaves_in_float_is_found_out(tmp_path, name):
    found = covered(tmp_path, LEFT_FLOAT[name], ["site", "other"])
    assert found.unfused == ("site",)
    assert sum(found.floating.values()) >= 1


@pytest.mark.parametrize(
    "after",
    [
        "y = Identity (t)",
        "y = Relu (t)",
        "r = Relu (t) y = Sigmoid (r)",
        "r = Clip (t, zero) y = Sigmoid (r)",
        "r = Sigmoid (t) y = Neg (r)",
        "y = Add (t, x)",
        "r = Add (t, x) y = Relu (r)",
        "r = Add (t, x) k = Relu (r) y = Neg (k)",
        "y = Sum (t, x)",
        "y = Mul (t, zero)",
    ],
)
@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_whatever_it_is_merged_with_a_float_gemm_is_found_out(tmp_path, operator, after):
    body = f"{READ} {MATRIX} [site] t = {operator} (d, v) {after}"
    found = covered(tmp_path, body, ["site"], shape="4, 4")
    is_float = any("Gemm" in op or "MatMul" in op for op in found.floating)
    assert found.unfused == (("site",) if is_float else ())
    assert is_float != bool({"QGemm", "MatMulIntegerToFloat"} & found.integer.keys())


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_what_reads_a_float_result_is_float(tmp_path, operator):
    found = covered(
        tmp_path, f"{READ} {MATRIX} [site] t = {operator} (d, v) y = Tanh (t)", ["site"], "4, 4"
    )
    assert found.unfused == ()
    assert found.floating == Counter({"Tanh": 1})
    body = f"""{READ} {MATRIX} [site] t = {operator} (d, v) p = QuantizeLinear (t, s2, z)
        r = Clip (p, low) y = DequantizeLinear (r, s2, z)"""
    found = covered(tmp_path, body, ["site"], "4, 4")
    assert found.floating == Counter()
    assert found.integer["Clip"] == 1


def test_a_float_operator_that_is_no_site_is_no_failure(tmp_path):
    found = covered(tmp_path, LEFT_FLOAT["no integer kernel"], [])
    assert found.unfused == ()
    assert found.floating == Counter({"Tanh": 1})


@pytest.mark.parametrize("name", ["fused site", "site_nhwc", "a/MatMulAddFusion", "site_token_3"])
def test_a_name_like_those_onnxruntime_makes_is_found_too(tmp_path, name):
    body = LEFT_FLOAT["no output scale"].replace("[site]", f'["{name}"]')
    assert covered(tmp_path, body, [name]).unfused == (name,)


def test_operators_on_codes_are_integer_and_parameters_are_nothing():
    quantized = quantize("""
        g (float[1, 4, 8, 8] x) => (float[A, B, C, D] y)
        <float[4, 4, 1, 1] w, int64[4] twice = {1, 4, 16, 16}, float zero = {0}, float two = {2}> {
          t = Conv (x, w) c = Clip (t, zero, two)
          r = Resize <mode = "nearest"> (c, , , twice)
          k = Conv (r, w)
          y = Tanh (k)
        }""")
    found = quantized.coverage()
    assert {"QLinearConv", "Resize", "Clip"} <= found.integer.keys()
    assert found.floating == Counter({"Tanh": 1})
    assert found.unfused == ()


def test_a_model_that_does_not_load_is_an_error(tmp_path):
    quantized = quantize(
        "g (float[3, 4] x) => (float[3, 4] y) <float[4, 4] w> { y = MatMul (x, w) }"
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(to_bytes(quantized.model)[:200])
    with pytest.raises(VerificationError, match="onnxruntime does not load the model"):
        measure_coverage(path, [])


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    quantize(
        "g (float[3, 4] x) => (float[3, 4] y) <float[4, 4] w> { y = MatMul (x, w) }"
    ).coverage()
    assert list(tmp_path.iterdir()) == []


def layer(found, name: str) -> Layer:
    [layer] = [layer for layer in found.layers if layer.name == name]
    return layer


def test_what_is_merged_into_a_kernel_is_part_of_it(tmp_path):
    body = f"""{READ} {WEIGHT} [conv] t = Conv (d, v) [relu] r = Relu (t)
        p = QuantizeLinear (r, s2, low) [lone] e = DequantizeLinear (p, s2, low)
        [tanh] y = Tanh (e)"""
    found = covered(tmp_path, body, ["conv"])
    assert layer(found, "conv") == Layer(
        name="conv", op_type="Conv", kernel="QLinearConv", integer=True
    )
    assert layer(found, "relu") == Layer(
        name="relu", op_type="Relu", kernel="QLinearConv", integer=True, part_of="conv"
    )
    assert [found.name for found in found.layers] == ["conv", "relu", "tanh"]
    assert count_layers(found.layers) == (1, 2)


def test_a_float_product_is_found_in_the_gemm_that_it_became(tmp_path):
    body = f"{READ} {MATRIX} [site] t = MatMul (x, v) [bias] y = Add (t, row)"
    found = covered(tmp_path, body.replace("x, v", "x, f"), ["site"], shape="4, 4")
    assert layer(found, "site").kernel == layer(found, "bias").kernel == "Gemm"
    assert layer(found, "site").why == "its inputs are not quantized"
    assert layer(found, "bias").part_of == "site"
    assert found.unfused == ("site",)


def test_nodes_without_a_name_are_called_by_what_they_make(tmp_path):
    found = covered(tmp_path, f"{READ} {WEIGHT} t = Conv (d, v) y = Tanh (t)", [])
    assert [layer.name for layer in found.layers] == ["Conv:t", "Tanh:y"]


def test_shapes_and_positions_are_no_layers(tmp_path):
    body = """k = Shape (x) h = Gather (k, one) u = Unsqueeze (h, one_axis)
        v = Concat <axis = 0> (u, rest) [kept] y = Reshape (x, v)"""
    found = covered(tmp_path, body, [])
    assert [layer.name for layer in found.layers] == ["kept"]
    assert found.floating == Counter({"Reshape": 1})


def test_what_is_computed_at_load_has_no_kernel(tmp_path):
    body = "[square] c = Mul (f, f) [sum] y = Add (x, c)"
    found = covered(tmp_path, body, [], shape="4, 4")
    assert layer(found, "square").kernel == ""
    assert layer(found, "square").why == "computed once at load, or dropped"
    assert count_layers(found.layers) == (0, 1)


HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'

#: Files of integer operators, as `--format integer`, `--scheme dynamic` and `--scheme weight-only`
#: write them, and what onnxruntime makes of the node called "site".
INTEGER_FILES = {
    "MatMulNBits": """g (float[2, 32] x) => (float[2, 8] y) <uint8[8, 1, 16] w, float[8] s> {
        [site] y = com.microsoft.MatMulNBits <K = 32, N = 8, bits = 4, block_size = 32> (x, w, s)
    }""",
    "DynamicQuantizeMatMul": """g (float[2, 8] x) => (float[2, 4] y) <uint8[8, 4] w, float[4] s> {
        [site] y = com.microsoft.DynamicQuantizeMatMul (x, w, s)
    }""",
    "Gather": """g (int64[3] i) => (float[3, 4] y) <uint8[9, 4] w, float s = {0.1}> {
        [site] c = Gather (w, i) y = DequantizeLinear (c, s)
    }""",
    "ConvInteger": """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <uint8[4, 4, 1, 1] w> {
        q, s, z = DynamicQuantizeLinear (x)
        [site] c = ConvInteger (q, w, z) f = Cast <to = 1> (c) y = Mul (f, s)
    }""",
    "QLinearConv": """g (uint8[1, 4, 6, 6] x) => (uint8[1, 4, 6, 6] y)
        <float s = {0.1}, uint8 z = {128}, uint8[4, 4, 1, 1] w> {
        [site] y = QLinearConv (x, s, z, w, s, z, s, z)
    }""",
    "QLinearAdd": """g (uint8[4] x) => (uint8[4] y) <float s = {0.1}, uint8 z = {128}> {
        [site] y = com.microsoft.QLinearAdd (x, s, z, x, s, z, s, z)
    }""",
    "MaxPool": """g (uint8[1, 4, 6, 6] x) => (uint8[1, 4, 5, 5] y) {
        [site] y = MaxPool <kernel_shape = [2, 2]> (x)
    }""",
    "MatMulIntegerToFloat": """g (uint8[2, 8] x) => (float[2, 4] y)
        <float s = {0.1}, int8[8, 4] w> {
        [site] y = com.microsoft.MatMulIntegerToFloat (x, w, s, s)
    }""",
}


@pytest.mark.parametrize("kernel", INTEGER_FILES)
def test_integer_operators_in_the_file_count_as_what_they_are(tmp_path, kernel):
    path = write(tmp_path / "model.onnx", parse(HEADER + INTEGER_FILES[kernel]))
    found = measure_coverage(path, ["site"])
    assert layer(found, "site").integer
    assert layer(found, "site").kernel == kernel
    assert found.integer[kernel] == 1
    assert found.unfused == ()


def test_what_onnxruntime_merges_into_a_dynamic_product_is_part_of_it(tmp_path):
    text = """g (float[2, 8] x) => (float[2, 4] y) <uint8[8, 4] w, float ws = {0.1}, float[4] b> {
        q, s, z = DynamicQuantizeLinear (x)
        [site] c = MatMulInteger (q, w, z) f = Cast <to = 1> (c)
        [scale] k = Mul (s, ws) [times] m = Mul (f, k) [bias] y = Add (m, b)
    }"""
    found = measure_coverage(write(tmp_path / "model.onnx", parse(HEADER + text)), ["site"])
    assert found.integer == Counter({"DynamicQuantizeMatMul": 1})
    assert found.floating == Counter()
    assert found.conversions == 0
    parts = {layer.name: layer.part_of for layer in found.layers}
    assert parts == {"site": "", "scale": "site", "times": "site", "bias": "site"}


BRANCHES = """
g (bool c, float[4, 4] x) => (float[4, 4] y)
<float s = {0.05}, uint8 z = {128}, int8[4, 4] m, float one = {1}> {
  [choice] y = If (c) <
    then_branch = yes () => (float[4, 4] a) {
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      v = DequantizeLinear (m, one)
      [product] a = MatMul (d, v)
    },
    else_branch = no () => (float[4, 4] b) { [tanh] b = Tanh (x) }
  >
}"""


def test_nodes_inside_branches_count(tmp_path):
    found = measure_coverage(write(tmp_path / "model.onnx", BRANCHES), [])
    assert found.integer == Counter({"MatMulIntegerToFloat": 1})
    assert found.floating == Counter({"Tanh": 1})
    assert found.conversions == 1
    assert {layer.name: layer.integer for layer in found.layers} == {"product": True, "tanh": False}
