"""Products of dynamically quantized activations, as onnxruntime's own quantizer writes them."""

import numpy as np
import onnx_ir as ir
import pytest
from support.integer import fuse, fuse_model, weights
from support.models import load
from support.nets import normal, prepare

from ptq.graph.emit_dynamic import emit_dynamic

PRODUCT = """q{n}, s{n}, z{n} = DynamicQuantizeLinear (x{n})
    i{n} = MatMulInteger (q{n}, w, z{n}, wz) c{n} = Cast <to = 1> (i{n})
    m{n} = Mul (s{n}, ws) t{n} = Mul (c{n}, m{n})"""


def arrays(*, per_channel=True, zero_point=0):
    shape = (5,) if per_channel else ()
    return {
        "w": weights((7, 5)),
        "ws": np.random.default_rng(0).uniform(0.01, 0.1, shape).astype(np.float32).reshape(shape),
        "wz": np.full(shape, zero_point, np.int8),
    }


def product(body, constants, outputs="float[N, L, 5] y", inputs="float[N, L, 7] x"):
    return fuse(f"g ({inputs}) => ({outputs}) {{ {body} }}", constants)


def check(pair, feed):
    simulated, found = pair.outputs(feed)
    for wanted, array in zip(simulated, found, strict=True):
        # the same integers, scaled by products that are rounded in another order
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("zero_point", [0, 3])
def test_a_product_of_its_own_takes_the_float_activation(per_channel, zero_point):
    body = PRODUCT.format(n="").replace("t =", "y =")
    pair = product(body, arrays(per_channel=per_channel, zero_point=zero_point))
    assert pair.op_types == ["DynamicQuantizeMatMul"]
    assert pair.integer.graph[0].name == "node 1: i"
    check(pair, {"x": normal((2, 3, 7))})


@pytest.mark.parametrize("body", [" y = Add (t, b)", " y = Add (b, t)", " y = Sum (t, b)"])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)])
def test_the_bias_is_absorbed(body, shape):
    bias = {"b": normal(shape)}
    pair = product(PRODUCT.format(n="") + body, {**arrays(), **bias})
    assert pair.op_types == ["DynamicQuantizeMatMul"]
    check(pair, {"x": normal((2, 3, 7))})


def test_the_order_of_the_factors_does_not_matter():
    body = (
        PRODUCT.format(n="")
        .replace("(s, ws)", "(ws, s)")
        .replace("t = Mul (c, m)", "y = Mul (m, c)")
    )
    pair = product(body, arrays())
    assert pair.op_types == ["DynamicQuantizeMatMul"]
    check(pair, {"x": normal((2, 3, 7))})


def test_products_of_one_activation_share_its_quantization():
    constants = arrays()
    constants |= {f"v{name}": array for name, array in arrays(zero_point=-2).items()}
    second = """ j = MatMulInteger (q, vw, z, vwz) d = Cast <to = 1> (j)
        k = Mul (s, vws) r = Mul (d, k) o = Add (r, b)"""
    body = PRODUCT.format(n="").replace("t =", "y =") + second
    pair = product(body, {**constants, "b": normal((5,))}, "float[N, L, 5] y, float[N, L, 5] o")
    kinds = ["DynamicQuantizeLinear", "MatMulIntegerToFloat", "MatMulIntegerToFloat"]
    assert pair.op_types == kinds
    check(pair, {"x": normal((2, 3, 7))})


def test_an_activation_that_is_read_in_codes_too_stays_quantized():
    body = PRODUCT.format(n="").replace("t =", "y =")
    pair = product(body, arrays(), "float[N, L, 5] y, uint8[N, L, 7] q")
    assert pair.op_types == ["DynamicQuantizeLinear", "MatMulIntegerToFloat"]
    check(pair, {"x": normal((2, 3, 7))})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("t = Mul (c, m)", "t = Mul (c, m) u = Neg (c)"),
        ("t = Mul (c, m)", "t = Div (c, m)"),
        ("m = Mul (s, ws)", "m = Add (s, ws)"),
        ("(q, w, z, wz)", "(q, w, other, wz)"),
    ],
)
def test_what_looks_otherwise_is_left_as_it_is(old, new):
    body = PRODUCT.format(n="").replace(old, new) + " y = Identity (t)"
    outputs = "float[N, L, 5] y" + (", float[N, L, 5] u" if "u =" in body else "")
    constants = arrays() | ({"other": np.asarray(9, np.uint8)} if "other" in new else {})
    pair = product(body, constants, outputs)
    assert not pair.fused.kernels
    assert "MatMulInteger" in pair.op_types


def test_what_emit_dynamic_writes_is_fused_under_the_names_of_the_float_operators():
    text = """g (float[N, 7] x) => (float[N, 5] y, float[N, 5] z)
        <float[7, 5] w, float[5] b, float[5, 7] v, float[5] c> {
        t = MatMul (x, w) y = Add (t, b) z = Gemm <transB = 1> (x, v, c) }"""
    model = prepare(text)
    names = [node.name for node in model.graph if node.op_type != "Add"]
    emit_dynamic(model)
    pair = fuse_model(model)
    assert pair.fused.kernels == {"MatMulIntegerToFloat": 2}
    assert [n.name for n in pair.integer.graph if n.domain] == names
    check(pair, {"x": normal((3, 7))})


def test_dynamic_convolutions_stay_as_they_are():
    body = """q, s, z = DynamicQuantizeLinear (x) i = ConvInteger (q, w, z) c = Cast <to = 1> (i)
        m = Mul (s, ws) y = Mul (c, m)"""
    constants = {"w": weights((4, 3, 1, 1)), "ws": np.float32(0.1).reshape(())}
    signature = "g (float[N, 3, H, W] x) => (float[N, 4, H, W] y)"
    model = load(f"{signature} <int8[4, 3, 1, 1] w, float ws> {{ {body} }}", constants)
    before = [n.op_type for n in model.graph]
    assert fuse_model(model).op_types == before


def test_a_body_that_scales_the_sums_is_left_alone():
    model = load("""
        g (float[N, 7] x, bool c) => (float[N, 5] y) <int8[7, 5] w, float ws> {
          q, s, z = DynamicQuantizeLinear (x)
          i = MatMulInteger (q, w, z)
          f = Cast <to = 1> (i)
          m = Mul (s, ws)
          y = If (c) <then_branch = a () => (float[N, 5] p) { p = Mul (f, m) },
                      else_branch = e () => (float[N, 5] r) { r = Neg (f) }>
        }""", {"w": weights((7, 5)), "ws": np.float32(0.1).reshape(())})  # fmt: skip
    assert isinstance(model, ir.Model)
    assert not fuse_model(model).fused.kernels
