"""Models that are quantized already or not float32 are refused, and mixed ones are not."""

import pytest
from support.models import load

from ptq.errors import UnsupportedError
from ptq.graph.refuse import refuse_unsupported

QUANTIZED = [
    "y = DequantizeLinear (q, s)",
    "h = QuantizeLinear (x, s) y = DequantizeLinear (h, s)",
    "y = com.microsoft.MatMulNBits <K = 4, N = 4, bits = 4, block_size = 32> (x, q, s)",
    "y = com.microsoft.QGemm (x, q, s)",
    "y = com.microsoft.QLinearAdd (x, q, s)",
    "h, i, j = DynamicQuantizeLinear (x) y = Cast <to = 1> (h)",
    "h = MatMulInteger (q, q) y = Cast <to = 1> (h)",
    "h = ConvInteger (q, q) y = Cast <to = 1> (h)",
    "y = qonnx.custom_op.general.Quant (x, s)",
]


def model(body, weights="uint8[4, 4] q, float s"):
    return load(f"""
        <ir_version: 8, opset_import: ["" : 21, "com.microsoft" : 1, "qonnx.custom_op.general" : 1]>
        g (float[4, 4] x, bool c) => (float[4, 4] y) <{weights}> {{ {body} }}""")


@pytest.mark.parametrize("body", QUANTIZED)
def test_quantized_models(body):
    with pytest.raises(UnsupportedError, match="quantized already"):
        refuse_unsupported(model(body))


def test_the_first_node_and_the_count_are_named():
    quantized = model("a = Neg (x) h = QuantizeLinear (a, s) y = DequantizeLinear (h, s)")
    quantized.graph[1].name = "quantize_a"
    with pytest.raises(
        UnsupportedError, match="2 of 3 nodes, the first is QuantizeLinear 'quantize_a'"
    ):
        refuse_unsupported(quantized)


def test_inside_a_subgraph():
    with pytest.raises(UnsupportedError, match="DequantizeLinear 'u'"):
        refuse_unsupported(
            model(
                "y = If (c) <then_branch = t () => (float[4, 4] u) { u = DequantizeLinear (q, s) },"
                " else_branch = e () => (float[4, 4] v) { v = Identity (x) }>"
            )
        )


def test_inside_a_function():
    quantized = load("""
        <ir_version: 9, opset_import: ["" : 21, "local" : 1]>
        g (float[4] x) => (float[4] y) <float s> { y = local.f (x, s) }
        <opset_import: ["" : 21], domain: "local"> f (a, s) => (b) {
          h = QuantizeLinear (a, s)
          b = DequantizeLinear (h, s)
        }""")
    with pytest.raises(UnsupportedError, match="quantized already"):
        refuse_unsupported(quantized)


@pytest.mark.parametrize(
    ("dtype", "name"), [("float16", "float16"), ("bfloat16", "bfloat16"), ("double", "float64")]
)
def test_other_floats(dtype, name):
    weights = f"{dtype}[8, 4] w, float[4, 2] small, {dtype}[100] bias"
    with pytest.raises(UnsupportedError, match=f"the model is {name}: 80% of its weights are"):
        refuse_unsupported(model("y = Neg (x)", weights))


def test_constants_count_as_weights():
    with pytest.raises(UnsupportedError, match="float16: 100%"):
        refuse_unsupported(
            model("w = Constant <value = float16[2, 2] {1, 2, 3, 4}> () y = Neg (x)")
        )


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        pytest.param("y = MatMul (x, w)", "float[4, 4] w", id="float32"),
        pytest.param("y = Neg (x)", "float[4, 4] w, float16[4, 4] v", id="half of it"),
        pytest.param("y = Neg (x)", "double[100] v", id="no matrix"),
        pytest.param("y = Neg (x)", "int64[9, 9] i", id="integers"),
        pytest.param(
            "v = Cast <to = 1> (w) y = MatMul (x, v)", "float16[4, 4] w", id="storage only"
        ),
        pytest.param("y = com.microsoft.QuickGelu (x)", "float s", id="a name with a Q"),
    ],
)
def test_these_are_not_refused(body, weights):
    refuse_unsupported(model(body, weights))


def test_half_precision_that_is_computed_with_is_refused():
    with pytest.raises(UnsupportedError, match="float16"):
        refuse_unsupported(
            model("v = Cast <to = 1> (w) h = Neg (w) y = MatMul (x, v)", "float16[4, 4] w")
        )
