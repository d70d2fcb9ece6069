"""The runtime computes what the codes say, whatever form they are written in."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import load, random_feed
from support.nets import check, normal, prepare, run, to_bytes

from ptq.errors import CalibrationError, ConfigError
from ptq.graph.check import Signature
from ptq.graph.emit_weight_only import WeightFormat, emit_weight_only
from ptq.graph.save import to_bytes as saved
from ptq.numerics.blocks import quantize_blocks
from ptq.runtime.coverage import measure_coverage

BITS = [2, 4, 8]
#: No form in which activations are rounded as well.
EXACT = {"accuracy_level": 0}


class Emitted:
    """A model before and after, and what each weight became, seen by the hook."""

    def __init__(self, text, form, weights=None, exclude=None):
        self.source = prepare(text, weights)
        self.model = self.source.clone()
        self.tensors = {}
        self.result = emit_weight_only(
            self.model, form, quantize_weight=self._quantize, exclude=exclude
        )

    def _quantize(self, name, array, layout):
        tensor = quantize_blocks(array, layout)
        self.tensors.setdefault(name, []).append(tensor)
        return tensor

    def reference(self):
        """The float model, in which every weight is what its codes mean."""
        model = self.source.clone()
        for graph in model.graphs():
            for name, value in graph.initializers.items():
                if name in self.tensors:
                    [tensor] = self.tensors[name]
                    shape = value.const_value.shape.numpy()
                    array = tensor.dequantize().reshape(shape)
                    value.const_value = ir.Tensor(array, name=name)
        return model

    def plans(self):
        return {plan.name: plan for plan in self.result.nodes}

    def check_values(self, feed=None, tolerance=2e-6):
        """Both levels agree with the reference; sums in another order differ by 1e-6 or so."""
        check_domains(self.model)
        assert Signature.of(self.model) == Signature.of(self.source)
        feed = feed or random_feed(self.source)
        expected = run(self.reference(), feed)
        for level in ("disabled", "all"):
            for found, wanted in zip(run(self.model, feed, level), expected, strict=True):
                assert found.shape == wanted.shape
                error = np.abs(found - wanted).max(initial=0)
                assert error <= tolerance * max(np.abs(wanted).max(initial=0), 1e-30), level


def check_domains(model):
    """The ONNX checker takes what is standard; of the rest it knows nothing."""
    domains = {node.domain for graph in model.graphs() for node in graph}
    assert domains <= {"", "com.microsoft"}
    onnx.checker.check_model(onnx.ModelProto.FromString(to_bytes(model)))


def op_types(model):
    return [node.op_type for node in model.graph]


def floats(model):
    """Names of the float matrices that are left."""
    return [
        name
        for graph in model.graphs()
        for name, value in graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT and len(value.shape) > 1 and "/scale" not in name
    ]


def product(k=80, n=24, op="MatMul (x, w)", shape=None, x="N, T"):
    return f"""g (float[{x}, {k}] x) => (float[{x}, {n}] y)
               <float[{shape or f"{k}, {n}"}] w, float[{n}] b> {{ y = {op} }}"""


# -- products ------------------------------------------------------------------------------------


FORMS = st.builds(
    WeightFormat,
    bits=st.sampled_from(BITS),
    block=st.sampled_from([16, 32, 64, 128]),
    symmetric=st.booleans(),
    portable=st.booleans(),
    accuracy_level=st.just(0),
)


@given(st.integers(1, 70), st.integers(1, 20), FORMS, st.integers(0, 2**16))
def test_products_are_those_with_the_dequantized_weight(k, n, form, seed):
    emitted = Emitted(product(k, n), form, {"w": normal((k, n), seed)})
    if form.portable and form.bits == 2 and k * n < 1024:
        assert not emitted.tensors  # too small to be unpacked
        return
    feed = {"x": normal((2, 3, k), seed + 1)}
    if not form.portable:
        emitted.check_values(feed)
    else:
        # what fuses a DequantizeLinear rounds activations to 8 bits in blocks: 1/254 of the
        # largest of a block, on both sides of a sum of up to 70 products
        [wanted] = run(emitted.reference(), feed)
        [plain], [fused] = (run(emitted.model, feed, level) for level in ("disabled", "all"))
        np.testing.assert_allclose(plain, wanted, atol=2e-6 * np.abs(wanted).max())
        w = np.abs(emitted.tensors["w"][0].dequantize()).sum(axis=0).max()
        assert np.abs(fused - wanted).max() <= np.abs(feed["x"]).max() / 127 * w + 1e-6


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_gemm_is_a_product_with_its_bias(bits, symmetric, trans, bias):
    form = WeightFormat(bits, 32, symmetric, **EXACT)
    shape = "24, 80" if trans else "80, 24"
    text = product(op=f"Gemm <transB = {trans}> (x, w{bias})", shape=shape, x="N")
    emitted = Emitted(text, form)
    assert op_types(emitted.model) == ["MatMulNBits"]
    assert emitted.plans()["Gemm:y"].integer
    emitted.check_values()


@pytest.mark.parametrize("trans", [0, 1])
def test_a_portable_gemm_has_columns_of_blocks_that_onnxruntime_fuses(trans):
    shape = "24, 80" if trans else "80, 24"
    text = product(op=f"Gemm <transB = {trans}> (x, w, b)", shape=shape, x="N")
    emitted = Emitted(text, WeightFormat(portable=True))
    assert op_types(emitted.model) == ["DequantizeLinear", "Gemm"]
    check(emitted.model)
    feed = random_feed(emitted.source)
    np.testing.assert_allclose(
        run(emitted.model, feed)[0], run(emitted.reference(), feed)[0], atol=1e-4
    )
    assert fused(emitted.model) == {"MatMulNBits": 1}


def test_a_portable_product_that_onnxruntime_would_not_fuse_is_unpacked():
    text = """g (float[N, 80] x) => (float[N, 24] y, float[N, 24] r) <float[80, 24] w>
              { y = MatMul (x, w) r = Relu (y) }"""
    emitted = Emitted(text, WeightFormat(portable=True))
    assert emitted.result.nodes[0].why.endswith("unpacked at load")
    emitted.check_values()
    assert fused(emitted.model) == {"MatMul": 1, "Relu": 1}


def fused(model):
    """What computes in onnxruntime's optimized graph."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(to_bytes(model))
        coverage = measure_coverage(path, [])
    return dict(coverage.integer + coverage.floating)


@pytest.mark.parametrize(
    ("bias", "shape"), [("v", "24"), ("v", "1, 24"), ("v", "1"), ("v", ""), ("v", "3, 24")]
)
def test_a_bias_of_any_shape_is_added(bias, shape):
    text = f"""g (float[3, 80] x) => (float[3, 24] y) <float[80, 24] w, float[{shape}] v>
               {{ y = Gemm (x, w, {bias}) }}"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    expected = ["MatMulNBits", "Add"] if shape == "3, 24" else ["MatMulNBits"]
    assert op_types(emitted.model) == expected
    emitted.check_values()


@pytest.mark.parametrize("order", ["Add (t, b)", "Add (b, t)"])
def test_the_row_that_is_added_to_a_product_is_its_bias(order):
    text = f"""g (float[N, 80] x) => (float[N, 24] y) <float[80, 24] w, float[24] b>
               {{ t = MatMul (x, w) s = {order} y = Relu (s) }}"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    assert op_types(emitted.model) == ["MatMulNBits", "Relu"]
    assert emitted.plans()["Add:s"].integer
    emitted.check_values()


def test_a_row_that_would_raise_the_rank_is_added_apart():
    text = """g (float[N, 80] x) => (float[1, N, 24] y) <float[80, 24] w, float[1, 1, 24] v>
              { t = MatMul (x, w) y = Add (t, v) }"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    assert op_types(emitted.model) == ["MatMulNBits", "Add"]
    emitted.check_values()


def test_a_product_that_is_read_twice_keeps_its_value():
    text = """g (float[N, 80] x) => (float[N, 24] y, float[N, 24] t) <float[80, 24] w, float[24] v>
              { t = MatMul (x, w) y = Add (t, v) }"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    assert op_types(emitted.model) == ["MatMulNBits", "Add"]
    emitted.check_values()


def test_a_shared_weight_is_written_once():
    text = """g (float[N, 80] x, float[N, 80] z) => (float[N, 24] y, float[N, 24] u)
              <float[80, 24] w> { y = MatMul (x, w) u = MatMul (z, w) }"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    assert emitted.result.weights == 1
    codes = [v for v in emitted.model.graph.initializers.values() if v.dtype == ir.DataType.UINT8]
    assert len(codes) == 1
    emitted.check_values()


def test_activations_are_rounded_only_at_accuracy_level_4():
    emitted = {level: Emitted(product(), WeightFormat(8, accuracy_level=level)) for level in (0, 4)}
    feed = {"x": normal((1, 5, 80))}
    exact, rounded = (run(emitted[level].model, feed, "all")[0] for level in (0, 4))
    [wanted] = run(emitted[0].reference(), feed)
    assert np.abs(exact - wanted).max() <= 1e-5 * np.abs(wanted).max()
    # half a step of 1/127 of the largest of a block, as random errors of 80 products add up
    assert np.abs(rounded - wanted).max() <= 0.03 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("Gemm <alpha = 0.5> (x, w)", "attribute alpha=0.5; the kernel needs 1"),
        ("Gemm <beta = 2.0> (x, w, b)", "attribute beta=2; the kernel needs 1"),
        ("MatMul (x, x)", "the weight is not constant"),
        ("Relu (x)", "it has no weight that could be quantized"),
    ],
)
def test_what_stays_in_float_says_why(op, why):
    text = product(24, 24, op, shape="24, 24", x="24")
    emitted = Emitted(text, WeightFormat())
    assert [plan.why for plan in emitted.result.nodes] == [why]
    assert not emitted.result.nodes[0].integer


def test_what_is_excluded_stays_as_it_is():
    emitted = Emitted(product(), WeightFormat(), exclude={"MatMul:y": "by hand"})
    [plan] = emitted.result.nodes
    assert plan.why == "by hand"
    assert emitted.result.weights == 0
    assert saved(emitted.model) == saved(emitted.source)


# -- tables --------------------------------------------------------------------------------------


def table(rows=50, width=64):
    return f"""g (int64[N, T] i) => (float[N, T, {width}] y) <float[{rows}, {width}] w>
               {{ y = Gather (w, i) }}"""


INDICES = {"i": np.array([[0, 49, 7], [-1, -50, 7]])}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize("width", [64, 66, 97])
def test_rows_are_those_of_the_dequantized_table(bits, symmetric, portable, width):
    emitted = Emitted(table(width=width), WeightFormat(bits, 32, symmetric, portable))
    # products with a scale are rounded once
    emitted.check_values(INDICES, tolerance=1e-7)
    assert not floats(emitted.model)
    unpacked = bits == 2 and (portable or width % 4 != 0)
    assert emitted.plans()["Gather:y"].integer != unpacked
    if not portable and not unpacked:
        assert op_types(emitted.model) == ["GatherBlockQuantized"]


def test_a_table_that_is_a_weight_too_has_codes_for_both():
    text = """g (int64[T] i) => (float[T, 40] y) <float[40, 64] w>
              { e = Gather (w, i) y = Gemm <transB = 1> (e, w) }"""
    emitted = Emitted(text, WeightFormat(**EXACT))
    assert op_types(emitted.model) == ["GatherBlockQuantized", "MatMulNBits"]
    assert emitted.result.weights == 1  # rounded once, written for each kernel
    emitted.check_values({"i": np.array([3, 39])})
    assert not floats(emitted.model)


# -- unpacked at load ----------------------------------------------------------------------------

CONV = """g (float[1, 16, 9, 9] x) => (float[N, C, H, W] y)
          <float[20, 16, 3, 3] w, float[20] b> { y = Conv (x, w, b) }"""
DEPTHWISE = """g (float[1, 128, 9, 9] x) => (float[N, C, H, W] y)
               <float[128, 1, 3, 3] w> { y = Conv <group = 128> (x, w) }"""
ODD = """g (float[1, 7, 9] x) => (float[N, C, L] y)
         <float[31, 7, 5] w> { y = Conv (x, w) }"""
TRANSPOSED = """g (float[1, 16, 5, 5] x) => (float[N, C, H, W] y)
                <float[16, 20, 3, 3] w> { y = ConvTranspose (x, w) }"""
GRU = """g (float[T, 2, 20] x) => (float[T, 1, 2, 24] y)
         <float[1, 72, 20] w, float[1, 72, 24] r> { y, h = GRU <hidden_size = 24> (x, w, r) }"""
BATCHED = """g (float[3, 5, 20] x) => (float[3, 5, 24] y) <float[3, 20, 24] w>
             { y = MatMul (x, w) }"""


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("text", [CONV, DEPTHWISE, ODD, TRANSPOSED, GRU, BATCHED])
def test_what_has_no_kernel_is_unpacked_when_the_model_is_loaded(text, bits, symmetric):
    emitted = Emitted(text, WeightFormat(bits, 32, symmetric))
    emitted.check_values(tolerance=1e-5)
    check(emitted.model)
    assert not floats(emitted.model)
    [plan] = [plan for plan in emitted.result.nodes if plan.weight]
    assert plan.why.endswith(f"its weight has {bits} bits, unpacked at load")
    kinds = fused(emitted.model)
    assert not {"Cast", "Mul", "Sub", "BitShift", "DequantizeLinear"} & kinds.keys(), kinds


@pytest.mark.parametrize("bits", BITS)
def test_without_kernels_products_and_tables_are_unpacked_too(bits):
    text = """g (int64[T] i) => (float[T, 40] y) <float[50, 64] w, float[64, 40] v>
              { e = Gather (w, i) y = MatMul (e, v) }"""
    emitted = Emitted(text, WeightFormat(bits, kernels=False))
    emitted.check_values({"i": np.array([3, 39])})
    assert fused(emitted.model) == {"Gather": 1, "MatMul": 1}
    assert not floats(emitted.model)


def test_a_weight_that_is_moved_before_it_is_read_is_unpacked():
    text = """g (float[N, 40] x) => (float[N, 20] y) <float[40, 40] w, int64[1] a = {0},
              int64[1] e = {20}> { t = Transpose (w) s = Slice (t, a, e) u = Transpose (s)
              y = MatMul (x, u) }"""
    source = load(text)  # not normalized: that would fold it
    model = source.clone()
    for i, node in enumerate(model.graph):
        node.name = f"node {i}"
    result = emit_weight_only(model, WeightFormat(8))
    assert result.weights == 1
    feed = random_feed(source)
    [wanted], [found] = run(source, feed), run(model, feed, "all")
    # half a step of 1/127 of the largest weight for each of 40 products
    w = source.graph.initializers["w"].const_value.numpy()
    assert np.abs(found - wanted).max() <= np.abs(feed["x"]).sum(axis=1).max() * w.max() / 200


def test_a_constant_that_is_read_as_no_weight_stays():
    text = """g (float[N, 40] x) => (float[N, 40] y, float[40, 40] z) <float[40, 40] w>
              { y = Gemm <transA = 0, alpha = 0.5> (x, w) z = Relu (w) }"""
    model = load(text)
    for i, node in enumerate(model.graph):
        node.name = f"node {i}"
    result = emit_weight_only(model, WeightFormat())
    assert result.weights == 0
    assert list(model.graph.initializers) == ["w"]


def test_small_constants_are_not_worth_the_nodes():
    text = """g (float[1, 4, 9, 9] x) => (float[N, C, H, W] y)
              <float[8, 4, 3, 3] w> { y = Conv (x, w) }"""
    emitted = Emitted(text, WeightFormat())
    assert saved(emitted.model) == saved(emitted.source)


# -- bodies --------------------------------------------------------------------------------------

BODY = """
g (float[N, 80] x, bool c) => (float[N, 24] y) <float[80, 24] w> {
  y = If (c) <
    then_branch = a () => (float[N, 24] p) { p = MatMul (x, w) },
    else_branch = e () => (float[N, 24] q) {
      v = Constant <value = float[1, 1] {2}> () t = MatMul (x, w) q = Mul (t, v) }
  > }"""


@pytest.mark.parametrize("form", [WeightFormat(**EXACT), WeightFormat(8, kernels=False)])
def test_products_inside_of_bodies_are_quantized(form):
    emitted = Emitted(BODY, form)
    assert [plan.op_type for plan in emitted.result.inner] == ["MatMul", "MatMul"]
    assert emitted.result.weights == 1
    assert not floats(emitted.model)
    for condition in (True, False):
        emitted.check_values({"x": normal((3, 80)), "c": np.array(condition)})


def test_constants_inside_of_bodies_are_unpacked_there():
    model = with_inner_constant()
    before = model.clone()
    result = emit_weight_only(model, WeightFormat(8))
    assert result.weights == 1
    [plan] = result.inner
    assert plan.op_type == "Conv"
    assert len(saved(model)) < len(saved(before)) / 2
    feed = {"x": normal((1, 16, 9)), "c": np.array(True)}
    [wanted], [plain], [fast] = run(before, feed), run(model, feed), run(model, feed, "all")
    # 48 products, each wrong by half a step of 1/127 of its block's largest
    assert np.abs(plain - wanted).max() <= 0.02 * np.abs(wanted).max()
    np.testing.assert_allclose(fast, plain, atol=1e-5 * np.abs(wanted).max())


def with_inner_constant():
    """A model whose branch holds a weight in a Constant node, as exporters write it."""
    model = load("""
        g (float[1, 16, 9] x, bool c) => (float[N, C, L] y) <float[32, 16, 3] w> {
          y = If (c) <
            then_branch = a () => (float[N, C, L] p) { p = Conv (x, w) },
            else_branch = e () => (float[N, C, L] q) { q = Identity (x) }>
        }""")
    [branch] = [g for g in model.graph.subgraphs() if g.name == "a"]
    conv = branch[0]
    weight = model.graph.initializers["w"]
    node = ir.node("Constant", [], {"value": weight.const_value}, name="constant")
    node.outputs[0].name = "inner w"
    branch.insert_before(conv, node)
    conv.replace_input_with(1, node.outputs[0])
    del model.graph.initializers["w"]
    for i, inner in enumerate(model.graph.all_nodes()):
        inner.name = f"node {i}"
    return model


# -- all of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [WeightFormat(b, portable=p) for b in BITS for p in (0, 1)])
def test_the_same_model_gives_the_same_bytes(form):
    texts = [product(), table(), CONV, BODY]
    first, second = ([saved(Emitted(t, form).model) for t in texts] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("bits", BITS)
def test_files_are_about_as_small_as_the_bits_say(bits):
    emitted = Emitted(product(512, 512), WeightFormat(bits, 64))
    # codes, a float32 scale for 64, and at most 2 kB of graph
    assert len(saved(emitted.model)) <= 512 * 512 * (bits + 32 / 64) / 8 + 2048


@pytest.mark.parametrize("text", [product(), table(), CONV])
def test_a_weight_that_is_not_finite_is_named(text):
    model = prepare(text)
    value = model.graph.initializers["w"]
    array = value.const_value.numpy().copy()
    array.flat[5] = np.nan
    value.const_value = ir.Tensor(array, name="w")
    with pytest.raises(CalibrationError, match=r"weight 'w'.*NaN"):
        emit_weight_only(model, WeightFormat())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 7}, "weights of 7 bits"),
        ({"block": 48}, "a block of 48 weights"),
        ({"block": 8}, "a block of 8 weights"),
        ({"accuracy_level": 2}, "accuracy level 2"),
    ],
)
def test_a_format_that_no_kernel_has_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        WeightFormat(**wrong)


def test_a_hook_must_keep_a_symmetric_grid():
    def wrong(_, array, layout):
        form = WeightFormat(layout.qtype.bits, layout.block_size, symmetric=False)
        return quantize_blocks(array + 1, form.along(layout.axis))

    with pytest.raises(ValueError, match="zero points of 'w' would be lost"):
        emit_weight_only(prepare(product()), WeightFormat(), quantize_weight=wrong)
