"""Integer and float are told apart in the graph that onnxruntime made."""

from collections import Counter
from pathlib import Path

import pytest
from support.models import parse
from support.nets import quantize, to_bytes

from ptq.errors import VerificationError
from ptq.runtime.coverage import measure_coverage

PARAMETERS = """
    float s = {0.05}, uint8 z = {128}, uint8 low = {0}, float s2 = {0.1},
    int8[4, 4, 1, 1] w, float[4] ws, int8[4] wz, int8[4, 4] m, float[4, 1] column,
    int16[4, 4, 1, 1] wide, int16[4] wide_z, float zero = {0}, float[4, 1, 1] array"""

READ = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)"
WEIGHT = "v = DequantizeLinear <axis = 0> (w, ws, wz)"
MATRIX = "v = DequantizeLinear <axis = 1> (m, ws, wz)"


def covered(tmp_path: Path, body: str, sites, shape="1, 4, 8, 8"):
    import numpy as np

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
