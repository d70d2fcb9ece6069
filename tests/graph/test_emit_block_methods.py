"""Every block quantizer in every form: the runtime computes what the codes stand for."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support.models import random_feed
from support.nets import normal, prepare, run, to_bytes

from ptq.block_methods import BLOCK_METHODS
from ptq.graph.emit_weight_only import WeightFormat, emit_weight_only
from ptq.graph.save import to_bytes as saved
from ptq.runtime.coverage import measure_coverage

#: Each realisation once: what kernels read as it is, what is widened, offsets, two levels, floats.
CASES = [
    ("mse", 3), ("hqq", 4), ("kquant", 6), ("kquant", 2), ("nf4", 4), ("mxfp4", 4), ("mxfp6", 6),
    ("mxint8", 8), ("mxfp8", 8),
]  # fmt: skip

every_case = pytest.mark.parametrize(("name", "bits"), CASES, ids=lambda v: str(v))

#: How a model is written: portable or not, and with kernels or unpacked at load.
FORMS = {"kernels": (False, True), "portable": (True, True), "unpacked": (True, False)}


def product(k, n=40):
    return f"""g (float[N, T, {k}] x) => (float[N, T, {n}] y)
               <float[{k}, {n}] w> {{ y = MatMul (x, w) }}"""


def gemm(k, n=40):
    return f"""g (float[N, {k}] x) => (float[N, {n}] y) <float[{n}, {k}] w, float[{n}] b>
               {{ y = Gemm <transB = 1> (x, w, b) }}"""


def table(k, rows=50):
    return f"""g (int64[N, T] i) => (float[N, T, {k}] y) <float[{rows}, {k}] w>
               {{ y = Gather (w, i) }}"""


CONV = """g (float[1, 9, 8, 8] x) => (float[1, 20, 6, 6] y) <float[20, 9, 3, 3] w>
          { y = Conv (x, w) }"""

INDICES = {"i": np.array([[0, 49, 7], [-1, -50, 7]])}


class Emitted:
    """A model before and after, and what its weight became."""

    def __init__(self, text, name, bits, form="kernels", **settings):
        method, (portable, kernels) = BLOCK_METHODS.methods()[name](), FORMS[form]
        self.source, self.tensors = prepare(text), {}
        self.model = self.source.clone()

        def quantize(weight, array, layout):
            assert weight not in self.tensors
            self.tensors[weight] = method.quantize(array, layout)
            return self.tensors[weight]

        layout = WeightFormat(
            bits, 32, portable=portable, kernels=kernels and not method.floats,
            accuracy_level=0, offsets=method.offsets, **settings,
        )  # fmt: skip
        self.result = emit_weight_only(self.model, layout, quantize_weight=quantize)

    def expected(self, feed):
        model = self.source.clone()
        for name, value in model.graph.initializers.items():
            if name in self.tensors:
                shape = value.const_value.shape.numpy()
                array = self.tensors[name].dequantize().reshape(shape)
                value.const_value = ir.Tensor(array, name=name)
        return run(model, feed)[0]

    def difference(self, feed, level="all"):
        """How far outputs are off, in shares of the largest of them."""
        onnx.checker.check_model(onnx.ModelProto.FromString(to_bytes(self.model)))
        wanted, [found] = self.expected(feed), run(self.model, feed, level)
        assert found.shape == wanted.shape
        return np.abs(found - wanted).max() / np.abs(wanted).max()


def fused(model):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(to_bytes(model))
        coverage = measure_coverage(path, [])
    return dict(coverage.integer + coverage.floating)


@every_case
def test_products_are_those_with_the_dequantized_weight(name, bits):
    for text in (product(80), gemm(96)):
        for form in FORMS:
            emitted = Emitted(text, name, bits, form)
            feed = random_feed(emitted.source)
            # sums of up to 96 products in another order, in float32
            assert emitted.difference(feed, "disabled") < 3e-6
            # onnxruntime makes a kernel of a portable product that rounds activations to 8 bits in
            # blocks: 1/254 of the largest of each on both sides of a sum
            assert emitted.difference(feed) < (1e-2 if form == "portable" else 3e-6)


@every_case
@pytest.mark.parametrize("form", ["kernels", "portable"])
def test_a_kernel_reads_the_codes_wherever_there_is_one(name, bits, form):
    emitted = Emitted(product(96), name, bits, form)
    unpacked = name == "mxfp8" or (form == "portable" and bits == 2)
    found = fused(emitted.model)
    assert ("MatMulNBits" in found) != unpacked
    assert emitted.result.nodes[0].integer != unpacked
    # beside a kernel there are sums of blocks and their product with offsets, and nothing else
    rest = {"Reshape", "ReduceSum", "MatMul", "Add"} if name in ("hqq", "kquant") else set()
    assert {*found} == ({"MatMul"} if unpacked else {"MatMulNBits"} | rest)


@every_case
@pytest.mark.parametrize("k", [64, 97])
def test_rows_of_a_table_are_those_of_the_dequantized_one(name, bits, k):
    for form in FORMS:
        emitted = Emitted(table(k), name, bits, form)
        # products with a scale are rounded once, and sums with an offset
        assert emitted.difference(INDICES) < 3e-7
        tables = fused(emitted.model).get("GatherBlockQuantized", 0)
        whole = name not in ("hqq", "kquant") or k % 32 == 0
        assert tables == (form == "kernels" and whole and name != "mxfp8")


@every_case
def test_what_has_no_kernel_is_unpacked(name, bits):
    emitted = Emitted(CONV, name, bits)
    assert emitted.difference(random_feed(emitted.source)) < 3e-6
    assert fused(emitted.model) == {"Conv": 1}
    assert f"{bits} bits, unpacked at load" in emitted.result.nodes[0].why


def test_products_that_read_the_same_share_the_sums_of_its_blocks():
    text = """g (float[N, 64] x) => (float[N, 24] y) <float[64, 24] v, float[64, 24] w> {
                a = MatMul (x, v) b = MatMul (x, w) y = Add (a, b)
              }"""
    emitted = Emitted(text, "hqq", 4)
    assert [n.op_type for n in emitted.model.graph].count("ReduceSum") == 1
    assert emitted.difference(random_feed(emitted.source)) < 3e-6


def test_a_product_of_which_the_rank_is_unknown_has_no_blocks_and_is_unpacked():
    text = """g (float[N, 8, 64] x, int64[R] s) => (float[N, 8, 24] y) <float[64, 24] w> {
                r = Reshape (x, s) p = MatMul (r, w) y = Reshape (p, s)
              }"""
    emitted = Emitted(text, "hqq", 4)
    assert emitted.result.nodes[1].why.endswith("unpacked at load")


def test_a_bias_of_any_shape_is_added_beside_offsets():
    text = """g (float[3, 64] x) => (float[3, 24] y) <float[64, 24] w, float[3, 24] v>
              { y = Gemm (x, w, v) }"""
    emitted = Emitted(text, "kquant", 4)
    assert emitted.difference(random_feed(emitted.source)) < 3e-6


#: Bits of a weight in the file, scales and all, in blocks of 32.
STORED = {
    ("mse", 4): 5.0, ("mse", 3): 4.0, ("hqq", 4): 6.0, ("kquant", 4): 4.5, ("kquant", 3): 3.5,
    ("kquant", 2): 2.5, ("kquant", 6): 6.5, ("nf4", 4): 5.0, ("mxfp4", 4): 4.25,
    ("mxfp6", 6): 6.25, ("mxint8", 8): 8.25, ("fp8", 8): 9.0, ("mxfp8", 8): 8.25,
}  # fmt: skip


@pytest.mark.parametrize(("name", "bits"), STORED, ids=lambda v: str(v))
@pytest.mark.parametrize("form", ["kernels", "unpacked"])
def test_the_file_has_as_few_bits_as_the_codes_and_scales_say(name, bits, form):
    size = 512 * 256
    emitted = Emitted(product(512, 256), name, bits, form)
    stored = 8 * len(saved(emitted.model)) / size
    # names and nodes take up to 6 kB; exponents of few values take 4 bits each, of 8
    assert STORED[name, bits] - 0.13 <= stored <= STORED[name, bits] + 8 * 6000 / size


@pytest.mark.parametrize("name", ["kquant", "mxfp4"])
def test_the_same_model_gives_the_same_bytes(name):
    one, other = (saved(Emitted(product(96), name, 4).model) for _ in range(2))
    assert one == other


def test_layers_may_have_widths_of_their_own():
    text = """g (float[N, 64] x) => (float[N, 24] y) <float[64, 64] v, float[64, 24] w> {
                a = MatMul (x, v) y = MatMul (a, w)
              }"""
    emitted = Emitted(text, "kquant", 4, widths={"MatMul:a": 6})
    assert [emitted.tensors[n].bits for n in ("v", "w")] == [6, 4]
    feed = {"x": normal((2, 64), 0)}
    assert emitted.difference(feed) < 3e-6
