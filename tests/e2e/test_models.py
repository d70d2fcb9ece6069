"""Models as exporters, converters and people write them: quantized, and still the same function."""

from dataclasses import dataclass

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.models import parse, random_feed

import ptq
from ptq.options import RunOptions


@dataclass(frozen=True)
class Case:
    """A model in ONNX text.

    Attributes:
        name: what is special about it.
        integers: how many of its operators must become integer kernels.
        text: the graph.
        data: what to calibrate on.
    """

    name: str
    integers: int
    text: str
    data: str = "random"


CASES = [
    Case(
        "dynamic axes everywhere",
        1,
        """
        g (float[N,8,H,W] x) => (float[N,16,H,W] y)
        <float[16,8,3,3] w, float[16] b> { y = Conv <pads = [1,1,1,1]> (x, w, b) }
        """,
        data="random:H=6,W=6",
    ),
    Case(
        "no shapes but the rank",
        1,
        """
        g (float[?,?,?,?] x) => (float[?,?,?,?] y)
        <float[16,2,3,3] w, float[16] b> { y = Conv <pads = [1,1,1,1]> (x, w, b) }
        """,
        data="random:x.1=2,x.2=6,x.3=6",
    ),
    Case(
        "a fixed batch of four",
        1,
        """
        g (float[4,8] x) => (float[4,16] y) <float[8,16] w, float[16] b> { y = Gemm (x, w, b) }
        """,
    ),
    Case(
        "inputs of many types",
        1,
        """
        g (int64[N,5] ids, float[N,5,16] extra, bool[N,5,1] mask, int32[N,5,1] count)
            => (float[N,5,8] y)
        <float[30,16] table, float[16,8] w, float zero = {0.0}>
        {
          e = Gather (table, ids)
          s = Add (e, extra)
          kept = Where (mask, s, zero)
          c = Cast <to = 1> (count)
          m = Mul (kept, c)
          t = Add (m, extra)
          y = MatMul (t, w)
        }
        """,
    ),
    Case(
        "images of bytes",
        1,
        """
        g (uint8[N,6,6,3] image) => (float[N,8,6,6] y)
        <float[8,3,3,3] w, float k = {64.0}>
        {
          f = Cast <to = 1> (image)
          s = Mul (f, k)
          t = Transpose <perm = [0,3,1,2]> (s)
          y = Conv <pads = [1,1,1,1]> (t, w)
        }
        """,
    ),
    Case(
        "several outputs, one in the middle, one of integers",
        2,
        """
        g (float[N,4,8,8] x) => (float[N,8,8,8] middle, float[N,8,8,8] y, int64[N,1,8,8] best)
        <float[8,4,3,3] w1, float[8,8,3,3] w2, float[8] b>
        {
          middle = Conv <pads = [1,1,1,1]> (x, w1)
          r = Relu (middle)
          y = Conv <pads = [1,1,1,1]> (r, w2, b)
          best = ArgMax <axis = 1> (y)
        }
        """,
    ),
    Case(
        "an output that is an input",
        1,
        """
        g (float[N,4,6,6] x) => (float[N,4,6,6] same, float[N,8,6,6] y)
        <float[8,4,1,1] w> { same = Identity (x) y = Conv (x, w) }
        """,
    ),
    Case(
        "If beside convolutions",
        1,
        """
        g (float[N,4,6,6] x, bool choose) => (float[N,8,6,6] y)
        <float[8,4,3,3] w, float[8] b, float two = {2.0}>
        {
          c = Conv <pads = [1,1,1,1]> (x, w, b)
          y = If (choose) <
            then_branch = yes () => (float[N,8,6,6] p) { p = Mul (c, two) },
            else_branch = no () => (float[N,8,6,6] q) { q = Neg (c) }
          >
        }
        """,
    ),
    Case(
        "a Loop that reads a convolution",
        1,
        """
        g (float[N,4,6,6] x) => (float[N,8,6,6] y)
        <float[8,4,3,3] w, int64 trips = {3}, bool always = {1}>
        {
          c = Conv <pads = [1,1,1,1]> (x, w)
          y = Loop (trips, always, c) <
            body = step (int64 i, bool go, float[N,8,6,6] a) => (bool go2, float[N,8,6,6] a2)
            { go2 = Identity (go) a2 = Add (a, c) }
          >
        }
        """,
    ),
    Case(
        "weights as Constant nodes",
        1,
        """
        g (float[N,2] x) => (float[N,3] y)
        {
          w = Constant <value = float[2,3] {0.5, -1.0, 0.25, 2.0, 1.0, -0.75}> ()
          b = Constant <value_floats = [0.5, -0.5, 0.1]> ()
          m = MatMul (x, w)
          y = Add (m, b)
        }
        """,
    ),
    Case(
        "names that ptq would give itself",
        2,
        """
        g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,1,1] w, float[4,4,1,1] "w/quantized", float[4] "x/scale">
        {
          ["x/Q"] "x/quantized" = Conv (x, w, "x/scale")
          ["x/DQ"] "x/dequantized" = Relu ("x/quantized")
          y = Conv ("x/dequantized", "w/quantized")
        }
        """,
    ),
    Case(
        "names of any characters",
        2,
        """
        g (float[N,4,6,6] "in: 0") => (float[N,4,6,6] "é/✓ out")
        <float[4,4,1,1] "w w", float[4,4,1,1] "w::2">
        { "a|b" = Conv ("in: 0", "w w") "é/✓ out" = Conv ("a|b", "w::2") }
        """,
    ),
    Case(
        "one weight for two convolutions",
        2,
        """
        g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,3,3] w, float[4] b1, float[4] b2>
        {
          a = Conv <pads = [1,1,1,1]> (x, w, b1)
          r = Relu (a)
          y = Conv <pads = [1,1,1,1]> (r, w, b2)
        }
        """,
    ),
    Case(
        "one weight along both of its axes",
        2,
        """
        g (float[N,16] x) => (float[N,16] y)
        <float[16,16] w, float[16] b1, float[16] b2>
        { a = Gemm (x, w, b1) r = Relu (a) y = Gemm <transB = 1> (r, w, b2) }
        """,
    ),
    Case(
        "a tensor that is read twice by one operator",
        2,
        """
        g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,1,1] w1, float[4,4,1,1] w2>
        { a = Conv (x, w1) d = Add (a, a) y = Conv (d, w2) }
        """,
    ),
    Case(
        "a residual block",
        3,
        """
        g (float[N,8,6,6] x) => (float[N,8,6,6] y)
        <float[8,8,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[8,8,1,1] w3>
        {
          a = Conv <pads = [1,1,1,1]> (x, w1, b1)
          r = Relu (a)
          c = Conv <pads = [1,1,1,1]> (r, w2, b2)
          s = Add (c, x)
          t = Relu (s)
          y = Conv (t, w3)
        }
        """,
    ),
    Case(
        "branches that are joined",
        3,
        """
        g (float[N,8,6,6] x) => (float[N,4,6,6] y)
        <float[4,8,1,1] w1, float[4,8,3,3] w2, float[4,12,1,1] w3>
        {
          a = Conv (x, w1)
          b = Conv <pads = [1,1,1,1]> (x, w2)
          m = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)
          j = Concat <axis = 1> (a, b, m)
          y = Conv (j, w3)
        }
        """,
    ),
    Case(
        "one dimension, groups and dilation",
        1,
        """
        g (float[N,8,30] x) => (float[N,8,26] y)
        <float[8,4,3] w, float[8] b> { y = Conv <group = 2, dilations = [2]> (x, w, b) }
        """,
    ),
    Case(
        "operators that stay in float between",
        3,
        """
        g (float[N,4,6,6] x) => (float[N,4,12,12] y)
        <float[4,4,3,3] w1, float[8,4,2,2] wt, float[8,4,1,1] w3, float[4,4,1,1] w4>
        {
          a = Conv <pads = [1,1,1,1]> (x, w1)
          e = Erf (a)
          b = Conv (e, w3)
          t = ConvTranspose <strides = [2,2]> (b, wt)
          y = Conv (t, w4)
        }
        """,
    ),
    Case(
        "a matrix on the left, one with a bias behind",
        2,
        """
        g (float[N,5,8] x) => (float[N,5,6] y)
        <float[8,12] w1, float[12] b1, float[12,6] w2, float[6] b2>
        {
          a = MatMul (x, w1)
          c = Add (a, b1)
          r = Relu (c)
          d = MatMul (r, w2)
          y = Add (b2, d)
        }
        """,
    ),
    Case(
        "a function of the model's own",
        2,
        """
        <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
        g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,1,1] w1, float[4,4,1,1] w2>
        { a = mine.Block (x, w1) y = mine.Block (a, w2) }
        <domain: "mine", opset_import: ["" : 17]>
        Block (t, w) => (u) { c = Conv (t, w) u = Relu (c) }
        """,
    ),
    Case(
        "operators of another domain",
        2,
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N,4,6,6] x) => (float[N,4,6,6] y)
        <float[4,4,1,1] w1, float[4,4,1,1] w2>
        { a = Conv (x, w1) b = com.microsoft.Gelu (a) y = Conv (b, w2) }
        """,
    ),
]

#: SQNR in dB of two or three layers of 8 bits with random weights and normal inputs; each layer
#: adds noise about 40 dB down, and the bound leaves room for unlucky weights.
SQNR_DB = 28.0


#: Operators with a weight.
LINEAR = ("Conv", "Gemm", "MatMul")


def kernels(result: ptq.Result) -> int:
    """Return how many operators with a weight onnxruntime runs in integers."""
    names = ("QLinearConv", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul")
    return sum(n for op, n in result.report.ran_integer.items() if op in names)


def some_feed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return inputs like the ones that ``random`` makes up for calibration."""
    feed = dict(random_feed(model, seed=5, N=3, H=7, W=9))
    for name, array in feed.items():
        if array.dtype == np.float32:
            feed[name] = array / 2  # its numbers have a standard deviation of 2
        elif array.dtype.kind in "iu":
            feed[name] = np.abs(array).astype(array.dtype) % 2
    return feed


def quantize(model: onnx.ModelProto, tmp_path, data="random", **settings) -> ptq.Result:
    """Write and quantize a model, and check what ptq wrote without asking it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    config = ptq.QuantizeConfig(allow_larger=True, calib="minmax", **settings)
    result = ptq.quantize(path, data, config)
    onnx.checker.check_model(str(result.output), full_check=True)
    return result


def outputs(path, feed) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def sqnr_db(reference: np.ndarray, found: np.ndarray) -> float:
    signal = np.square(reference.astype(np.float64)).sum()
    noise = np.square(reference.astype(np.float64) - found).sum()
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def assert_same_function(result: ptq.Result, feed, floor=SQNR_DB) -> None:
    before = onnx.load(result.output.with_name("model.onnx")).graph
    after = onnx.load(result.output).graph
    assert [o.name for o in after.output] == [o.name for o in before.output]
    wanted = outputs(result.output.with_name("model.onnx"), feed)
    found = outputs(result.output, feed)
    for info, a, b in zip(after.output, wanted, found, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), info.name
        if a.dtype == np.float32:
            assert sqnr_db(a, b) >= floor, info.name


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_model_becomes_integer_and_stays_the_same_function(case, tmp_path):
    model = parse(case.text, opset=17)
    result = quantize(model, tmp_path, case.data)
    linear = [n for n in result.plan.nodes if n.op_type in LINEAR]
    assert sum(node.integer for node in linear) == case.integers
    assert kernels(result) == case.integers
    assert_same_function(result, some_feed(model))


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23])
def test_a_model_of_any_opset_becomes_integer(opset, tmp_path):
    model = parse(
        """
        g (float[N,4,8,8] x) => (float[N,6] y)
        <float[8,4,3,3] w1, float[8] b1, float[8] k, float[8] s, float[8] m, float[8] var,
         float[8,8,1,1] w2, float[6,8] w3, float[6] b3>
        {
          a = Conv <pads = [1,1,1,1]> (x, w1, b1)
          n = BatchNormalization (a, k, s, m, var)
          r = Relu (n)
          p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
          c = Conv (p, w2)
          t = LeakyRelu <alpha = 0.1> (c)
          g = GlobalAveragePool (t)
          f = Flatten (g)
          y = Gemm <transB = 1> (f, w3, b3)
        }
        """,
        opset=opset,
    )
    result = quantize(model, tmp_path)
    assert kernels(result) == 3
    assert_same_function(result, some_feed(model))


def old(model: onnx.ModelProto, opset: int, ir_version: int = 3) -> onnx.ModelProto:
    """Turn a model into one of the first years, where every initializer is an input."""
    model.ir_version = ir_version
    model.opset_import[0].version = opset
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    return model


def test_weights_that_are_inputs_become_integer_and_no_inputs(tmp_path):
    model = old(
        parse(
            """
            g (float[N,4,8,8] x) => (float[N,8,8,8] y)
            <float[8,4,3,3] w, float[8] b> { y = Conv <pads = [1,1,1,1]> (x, w, b) }
            """
        ),
        opset=8,
    )
    result = quantize(model, tmp_path)
    assert kernels(result) == 1
    assert [i.name for i in onnx.load(result.output).graph.input] == ["x"]
    feed = {"x": some_feed(model)["x"]}
    assert_same_function(result, feed)


def test_attributes_of_opset_7_that_are_inputs_today(tmp_path):
    """Dropout with a ratio, Clip and Slice and Pad and Upsample with attributes."""
    model = parse(
        """
        <ir_version: 3, opset_import: ["" : 7]>
        g (float[N,4,8,8] x) => (float[N,8,6,6] y)
        {
          q = Pad <mode = "constant", pads = [0,0,1,1,0,0,1,1], value = 0.0> (x)
          a = Conv (q, w)
          c = Clip <min = 0.0, max = 6.0> (a)
          d = Dropout <ratio = 0.5> (c)
          s = Slice <axes = [2,3], starts = [1,1], ends = [4,4]> (d)
          y = Upsample <mode = "nearest", scales = [1.0,1.0,2.0,2.0]> (s)
        }
        """
    )
    w = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, w.shape))
    result = quantize(model, tmp_path)
    assert kernels(result) == 1
    assert_same_function(result, {"x": some_feed(model)["x"]})


def test_a_newest_opset_and_ir_version_are_read(tmp_path):
    newest = min(onnx.defs.onnx_opset_version(), 24)
    model = parse(
        "g (float[N,4] x) => (float[N,8] y) <float[4,8] w> { y = MatMul (x, w) }", opset=newest
    )
    model.ir_version = 10
    result = quantize(model, tmp_path)
    assert kernels(result) == 1


DUPLICATES = """
g (float[N,4,6,6] x) => (float[N,4,6,6] y)
<float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3>
{ [conv] a = Conv (x, w1) [conv] b = Conv (a, w2) y = Conv (b, w3) }
"""


def test_node_names_used_twice_are_told_apart(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(parse(DUPLICATES, opset=17).SerializeToString())
    nodes = ptq.inspect(path).nodes
    assert len({node.name for node in nodes}) == 3
    assert all(node.integer for node in nodes)


def test_a_model_with_node_names_used_twice_is_quantized(tmp_path):
    assert kernels(quantize(parse(DUPLICATES, opset=17), tmp_path)) == 3


@pytest.mark.parametrize("name", ["prepared.onnx", "model.onnx.float"])
def test_the_output_of_such_a_model_may_have_any_name(name, tmp_path):
    """Its prepared form is written for comparison; it once took the place of the result."""
    path = tmp_path / "model.onnx"
    path.write_bytes(parse(DUPLICATES, opset=17).SerializeToString())
    config = ptq.QuantizeConfig(allow_larger=True)
    options = RunOptions(output=tmp_path / name)
    output = ptq.quantize(path, "random", config, options=options).output
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(output).graph.node}


def test_data_of_changing_length(tmp_path):
    model = parse(
        """
        g (int64[N,T] ids, int64[N,T] mask) => (float[N,T,8] y)
        <float[50,16] table, float[16,16] w1, float[16,8] w2, int64[1] axis = {2}>
        {
          e = Gather (table, ids)
          f = Cast <to = 1> (mask)
          u = Unsqueeze (f, axis)
          m = Mul (e, u)
          a = MatMul (m, w1)
          r = Relu (a)
          y = MatMul (r, w2)
        }
        """,
        opset=17,
    )
    rng = np.random.default_rng(3)
    folder = tmp_path / "texts"
    folder.mkdir()
    for i, length in enumerate([3, 17, 8, 40, 1, 9]):
        np.savez(
            folder / f"{i}.npz",
            ids=rng.integers(0, 50, (1, length)),
            mask=np.ones((1, length), np.int64),
        )
    result = quantize(model, tmp_path, folder)
    assert kernels(result) == 2
    assert result.report.calibration.samples == 6
    ids = rng.integers(0, 50, (2, 11))
    assert_same_function(result, {"ids": ids, "mask": np.ones_like(ids)})


def test_inputs_that_are_always_zero(tmp_path):
    model = parse(CONV, opset=17)
    np.savez(tmp_path / "zeros.npz", x=np.zeros((4, 4, 6, 6), np.float32))
    result = quantize(model, tmp_path, tmp_path / "zeros.npz")
    found = outputs(result.output, {"x": np.zeros((1, 4, 6, 6), np.float32)})
    wanted = outputs(tmp_path / "model.onnx", {"x": np.zeros((1, 4, 6, 6), np.float32)})
    # one step of the output, whose range is that of the bias, and half a step of the bias: the
    # input has scale 1, the weights at most twice that of their range
    weights = next(w for w in model.graph.initializer if w.name == "w")
    step = np.abs(onnx.numpy_helper.to_array(weights)).max() / 127
    np.testing.assert_allclose(found[0], wanted[0], atol=np.ptp(wanted[0]) / 255 + step)


CONV = """
g (float[N,4,6,6] x) => (float[N,8,6,6] y)
<float[8,4,3,3] w, float[8] b> { y = Conv <pads = [1,1,1,1]> (x, w, b) }
"""


def test_weights_that_are_all_zero_give_an_exact_model(tmp_path):
    weights = {"w": np.zeros((8, 4, 3, 3), np.float32), "b": np.zeros(8, np.float32)}
    result = quantize(parse(CONV, weights, opset=17), tmp_path)
    assert result.report.accuracy.sqnr_db is None
    assert b'"sqnr_db": null' in result.report.to_json()


def test_the_report_on_an_exact_model_decodes_into_its_type(tmp_path):
    weights = {"w": np.zeros((8, 4, 3, 3), np.float32), "b": np.zeros(8, np.float32)}
    result = quantize(parse(CONV, weights, opset=17), tmp_path)
    assert msgspec.json.decode(result.report.to_json(), type=ptq.Report) == result.report


def test_errors_on_an_output_that_cancels_out_are_said(tmp_path):
    w = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    model = parse(
        """
        g (float[N,4,6,6] x) => (float[N,8,4,4] y)
        <float[8,4,3,3] w, float[8,4,3,3] v>
        { a = Conv (x, w) b = Conv (x, v) y = Add (a, b) }
        """,
        {"w": w, "v": -w},
        opset=17,
    )
    report = quantize(model, tmp_path).report
    assert report.accuracy.outputs[0].max_abs > 0
    # what is left of the signal is rounding, or nothing, as the float kernel adds it up
    said = ("far from the float model's", "all zero on this data")
    assert any(text in notice for notice in report.notices for text in said)


def test_a_dead_channel_with_a_bias_is_widened_and_said(tmp_path):
    w = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    w[2] *= 1e-12
    b = np.arange(8, dtype=np.float32)
    result = quantize(parse(CONV, {"w": w, "b": b}, opset=17), tmp_path)
    assert len(result.report.widened) == 1
    assert any("larger scales so that the bias fits" in n for n in result.report.notices)
    assert_same_function(result, some_feed(parse(CONV, opset=17)))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e15])
def test_tensors_of_any_magnitude(scale, tmp_path):
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((8, 4, 3, 3)) * scale).astype(np.float32)
    b = (rng.standard_normal(8) * scale).astype(np.float32)
    model = parse(CONV, {"w": w, "b": b}, opset=17)
    assert_same_function(quantize(model, tmp_path), some_feed(model))


def test_a_string_input_beside_a_network_is_fed_as_given(tmp_path):
    model = parse(
        """
        g (float[N,8] x, string[N] name) => (float[N,4] y, string[N] who)
        <float[8,4] w> { y = MatMul (x, w) who = Identity (name) }
        """,
        opset=17,
    )
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        x=rng.standard_normal((5, 8)).astype(np.float32),
        name=np.array(["a", "bb", "ccc", "d", "e"]),
    )
    result = quantize(model, tmp_path, tmp_path / "data.npz")
    assert kernels(result) == 1
    x = rng.standard_normal((2, 8)).astype(np.float32)
    _, who = outputs(result.output, {"x": x, "name": np.array(["k", "l"], object)})
    assert list(who) == ["k", "l"]


def test_subgraphs_are_left_as_they_are(tmp_path):
    [case] = [c for c in CASES if c.name == "If beside convolutions"]
    model = parse(case.text, opset=21)
    result = quantize(model, tmp_path)
    [before] = [n for n in model.graph.node if n.op_type == "If"]
    [after] = [n for n in onnx.load(result.output).graph.node if n.op_type == "If"]

    def operators(node):
        return [[n.op_type for n in a.g.node] for a in node.attribute]

    assert sorted(operators(after)) == sorted(operators(before))


def test_a_convolution_inside_a_subgraph_alone_is_refused_with_the_reason(tmp_path):
    model = parse(
        """
        g (float[N,4,6,6] x, bool choose) => (float[N,4,6,6] y)
        <float[4,4,1,1] w>
        {
          y = If (choose) <
            then_branch = yes () => (float[N,4,6,6] p) { p = Conv (x, w) },
            else_branch = no () => (float[N,4,6,6] q) { q = Neg (x) }
          >
        }
        """,
        opset=17,
    )
    with pytest.raises(ptq.PtqError, match="1 If: subgraphs are left in float"):
        quantize(model, tmp_path)


def test_an_initializer_that_is_an_output_stays_one(tmp_path):
    model = parse(
        "g (float[N,4] x) => (float[N,4] y, float[4,4] w) <float[4,4] w> { y = MatMul (x, w) }",
        opset=17,
    )
    if not model.graph.initializer:  # the parser takes an output's name for no initializer
        w = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
        del model.graph.value_info[:]
    result = quantize(model, tmp_path)
    assert_same_function(result, some_feed(model), floor=SQNR_DB)
