"""Dynamic quantization computes the integer formula, and fuses into onnxruntime's kernels."""

import io
import logging
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType, quantize_dynamic
from support.models import load, random_feed
from support.nets import check, normal, prepare, run, to_bytes

from ptq.errors import CalibrationError
from ptq.graph.check import Signature
from ptq.graph.emit_dynamic import DynamicForm, emit_dynamic
from ptq.graph.save import to_bytes as saved
from ptq.numerics.affine import QParams, QTensor, quantize
from ptq.numerics.qtype import INT8
from ptq.runtime.session import open_session

LINEAR = "float[80, 24] w, float[24] b"


def small(array, axis, symmetric):
    """Weights of 7 bits, of which no kernel saturates, on whatever CPU."""
    assert symmetric
    others = tuple(a for a in range(array.ndim) if a != axis)
    scale = np.maximum(np.abs(array).max(axis=others) / 64, 1e-6).astype(np.float32)
    params = QParams(scale, np.zeros(scale.shape, np.int8), INT8, axis)
    return QTensor(quantize(array, params), params)


def per_tensor(array, axis, symmetric):
    tensor = small(array.reshape(1, -1), 0, symmetric)
    params = tensor.qparams
    params = QParams(params.scale.reshape(()), params.zero_point.reshape(()), INT8)
    return QTensor(tensor.codes.reshape(array.shape), params)


def shifted(array, axis, symmetric):
    """A zero point of its own for each channel, and codes that are small in magnitude."""
    params = small(array, axis, symmetric).qparams
    zero_point = (np.arange(len(params.scale)) % 3).astype(np.int8)
    scale = params.scale * np.float32(1.1)
    params = replace(params, zero_point=zero_point, scale=scale)
    return QTensor(quantize(array, params), params)


def of_any_node(hook):
    return hook and (lambda _, *given: hook(*given))


def emitted(text, hook=small, form=None, exclude=None, weights=None):
    source = prepare(text, weights) if isinstance(text, str) else text
    model = source.clone()
    result = emit_dynamic(model, form, quantize_weight=of_any_node(hook), exclude=exclude)
    assert Signature.of(model) == Signature.of(source)
    onnx.checker.check_model(onnx.ModelProto.FromString(to_bytes(model)))
    return source, model, result


def dynamic_quantize(x):
    """DynamicQuantizeLinear as ONNX defines it, in float32."""
    lo, hi = min(x.min(initial=0), np.float32(0)), max(x.max(initial=0), np.float32(0))
    scale = np.float32(hi - lo) / np.float32(255) or np.float32(1)
    zero_point = np.clip(np.rint(np.float32(0) - lo / scale), 0, 255)
    codes = np.clip(np.rint(x / scale) + zero_point, 0, 255)
    return codes.astype(np.int64), scale, int(zero_point)


def product(x, tensor, bias=0):
    """The product of codes, exactly, times the scales in float32."""
    codes, scale, zero_point = dynamic_quantize(x)
    weight = tensor.codes.astype(np.int64) - tensor.qparams.zero_point
    sums = (codes - zero_point) @ weight
    return sums.astype(np.float32) * (scale * tensor.qparams.scale) + bias


def optimized(model):
    """The kernels that run when users open the model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(to_bytes(model), optimized=path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def array_of(model, name):
    return np.asarray(model.graph.initializers[name].const_value.numpy())


# -- products ------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 60),
    st.integers(1, 20),
    st.sampled_from([small, per_tensor, shifted]),
    st.integers(0, 2**16),
)
def test_a_product_is_the_integer_formula(batch, k, n, hook, seed):
    dims = ", ".join(f"d{i}" for i in range(len(batch)))
    text = f"""g (float[{dims}, {k}] x) => (float[{dims}, {n}] y) <float[{k}, {n}] w>
               {{ y = MatMul (x, w) }}"""
    source, model, result = emitted(text, hook, weights={"w": normal((k, n), seed)})
    [plan] = result.nodes
    assert plan.integer and plan.weight == "w"
    tensor = hook(array_of(source, "w"), 1, True)
    assert plan.weight_symmetric == (not np.any(tensor.qparams.zero_point))
    x = normal((*batch, k), seed + 1)
    wanted = product(x, tensor)
    for level in ("disabled", "all"):
        [found] = run(model, {"x": x}, level)
        # two products in float32, in either order
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30, err_msg=level)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", ["", ", b", ", r", ", s"])
def test_gemm_adds_its_bias_in_float(trans, bias):
    shape = "24, 80" if trans else "80, 24"
    text = f"""g (float[N, 80] x) => (float[N, 24] y)
               <float[{shape}] w, float[24] b, float[1, 24] r, float s>
               {{ y = Gemm <transB = {trans}> (x, w{bias}) }}"""
    source, model, _ = emitted(text)
    tensor = small(array_of(source, "w"), 1 - trans if not trans else 0, True)
    if trans:
        tensor = QTensor(tensor.codes.T, replace(tensor.qparams, axis=1))
    added = array_of(source, bias[2:]) if bias else 0
    x = normal((7, 80))
    for level in ("disabled", "all"):
        [found] = run(model, {"x": x}, level)
        np.testing.assert_allclose(found, product(x, tensor, added), rtol=1e-5, atol=1e-5)
    assert optimized(model) == {"DynamicQuantizeMatMul": 1}
    check(model)


@pytest.mark.parametrize("x", ["N, 80", "N, T, 80", "N, H, T, 80"])
def test_a_product_and_its_row_become_one_kernel(x):
    y = x.replace("80", "24")
    text = f"g (float[{x}] x) => (float[{y}] y) <{LINEAR}> {{ t = MatMul (x, w) y = Add (t, b) }}"
    _, model, _ = emitted(text)
    assert optimized(model) == {"DynamicQuantizeMatMul": 1}


def test_products_of_one_tensor_share_its_codes():
    text = """g (float[N, T, 80] x) => (float[N, T, 24] p, float[N, T, 20] q)
              <float[80, 24] w, float[80, 20] v, float[20] b>
              { p = MatMul (x, w) t = MatMul (x, v) q = Add (t, b) }"""
    source, model, _ = emitted(text)
    assert optimized(model) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2}
    x = normal((2, 3, 80))
    p, q = run(model, {"x": x}, "all")
    v = small(array_of(source, "v"), 1, True)
    np.testing.assert_allclose(p, product(x, small(array_of(source, "w"), 1, True)), rtol=1e-6)
    np.testing.assert_allclose(q, product(x, v, array_of(source, "b")), rtol=1e-5, atol=1e-5)


def test_kernels_are_called_like_the_nodes_whose_work_they_do():
    text = """g (float[N, T, 80] x) => (float[N, T, 24] p, float[N, T, 20] u)
              <float[80, 24] w, float[80, 20] v, float[20] b, float[24, 20] k>
              { p = MatMul (x, w) t = MatMul (x, v) q = Add (t, b) r = MatMul (p, k)
                u = Add (q, r) }"""
    _, model, _ = emitted(text)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(to_bytes(model), optimized=path)
        names = {node.name for node in onnx.load(path).graph.node if "MatMul" in node.op_type}
    assert names == {"MatMul:p", "MatMul:t", "MatMul:r"}


def test_products_in_a_row_are_each_quantized():
    text = """g (float[N, 80] x) => (float[N, 24] y) <float[80, 24] w, float[24, 24] v>
              { t = MatMul (x, w) r = Relu (t) y = MatMul (r, v) }"""
    source, model, _ = emitted(text)
    x = normal((3, 80))
    inner = np.maximum(product(x, small(array_of(source, "w"), 1, True)), 0)
    wanted = product(inner, small(array_of(source, "v"), 1, True))
    for level in ("disabled", "all"):
        # an ulp of the inner tensor can turn one of its codes, of 255, times a weight
        np.testing.assert_allclose(run(model, {"x": x}, level)[0], wanted, rtol=0.02, atol=0.1)
    assert optimized(model)["DynamicQuantizeMatMul"] == 2


def test_a_shared_weight_is_written_once():
    text = """g (float[N, 80] x, float[N, 80] z) => (float[N, 24] y, float[N, 24] u)
              <float[80, 24] w> { y = MatMul (x, w) u = MatMul (z, w) }"""
    _, model, result = emitted(text)
    assert result.weights == 1
    assert [v.dtype for v in model.graph.initializers.values()] == [
        ir.DataType.INT8,
        ir.DataType.FLOAT,
    ]


def test_the_default_covers_every_weight_of_a_channel():
    text = f"g (float[N, 80] x) => (float[N, 24] y) <{LINEAR}> {{ y = MatMul (x, w) }}"
    source, model, _ = emitted(text, hook=None)
    w = array_of(source, "w")
    np.testing.assert_allclose(array_of(model, "w/scale"), np.abs(w).max(axis=0) / 127, rtol=1e-6)
    _, model, _ = emitted(text, hook=None, form=DynamicForm(per_channel=False))
    np.testing.assert_allclose(array_of(model, "w/scale"), np.abs(w).max() / 127, rtol=1e-6)


def test_onnxruntimes_own_tool_gives_the_same_numbers(tmp_path):
    text = """g (float[N, 80] x) => (float[N, 24] y) <float[80, 24] w, float[24, 24] v>
              { t = MatMul (x, w) r = Relu (t) y = MatMul (r, v) }"""
    source, model, _ = emitted(text)
    given_, theirs = tmp_path / "given.onnx", tmp_path / "theirs.onnx"
    given_.write_bytes(to_bytes(source))
    logging.disable(logging.WARNING)
    with redirect_stdout(io.StringIO()):
        quantize_dynamic(
            given_, theirs, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
        )
    logging.disable(logging.NOTSET)
    feed = {"x": normal((5, 80))}
    [ours] = run(model, feed, "all")
    # the same 7 bits: its scales, computed otherwise, differ in the last bit, which can turn a code
    np.testing.assert_allclose(ours, run(onnx.load(theirs), feed, "all")[0], rtol=0.02, atol=0.2)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("Gemm <alpha = 0.5> (x, w)", "attribute alpha=0.5; the kernel needs 1"),
        ("Gemm <transA = 1> (x, w)", "attribute transA=1; the kernel needs 0"),
        ("MatMul (x, x)", "the weight is not constant"),
        ("MatMul (w, x)", "the weight is not constant"),
        ("Relu (x)", "it has no weight that could be quantized"),
    ],
)
def test_what_stays_in_float_says_why(op, why):
    text = f"g (float[24, 24] x) => (float[24, 24] y) <float[24, 24] w> {{ y = {op} }}"
    _, _, result = emitted(text)
    assert [(p.integer, p.why) for p in result.nodes] == [(False, why)]


def test_what_is_excluded_stays_as_it_is():
    text = f"g (float[N, 80] x) => (float[N, 24] y) <{LINEAR}> {{ y = MatMul (x, w) }}"
    source, model, result = emitted(text, exclude={"MatMul:y": "by hand"})
    assert [p.why for p in result.nodes] == ["by hand"]
    assert saved(model) == saved(source)


# -- recurrent layers ----------------------------------------------------------------------------


def lstm(directions=1, inputs="", declared="", attributes="", outputs="y, h, c", hidden=16):
    d = directions
    direction = ', direction = "bidirectional"' if d == 2 else ""
    return f"""g (float[T, B, 20] x{declared})
        => (float[T, {d}, B, {hidden}] y, float[{d}, B, {hidden}] h, float[{d}, B, {hidden}] c)
        <float[{d}, {4 * hidden}, 20] w, float[{d}, {4 * hidden}, {hidden}] r,
         float[{d}, {8 * hidden}] b, float[{d}, {3 * hidden}] p>
        {{ {outputs} = LSTM <hidden_size = {hidden}{direction}{attributes}> (x, w, r{inputs}) }}"""


STATES = ', b, "", h0, c0', ", float[{d}, 3, 16] h0, float[{d}, 3, 16] c0"


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("hook", [small, per_tensor])
@pytest.mark.parametrize(
    ("inputs", "declared", "attributes"),
    [
        ("", "", ""),
        (", b", "", ""),
        (*STATES, ""),
        (STATES[0] + ", p", STATES[1], ""),
        (", b", "", ", clip = 0.5"),
    ],
)
def test_an_lstm_is_the_integer_formula(directions, hook, inputs, declared, attributes):
    text = lstm(directions, inputs, declared.format(d=directions), attributes)
    source, model, result = emitted(text, hook)
    assert [n.op_type for n in model.graph] == ["DynamicQuantizeLSTM"]
    assert result.nodes[0].integer
    assert result.weights == 2
    feed = random_feed(source, T=4, B=3)
    found = run(model, feed, "all")
    for d in range(directions):
        wanted = lstm_formula(source, feed, hook, d, clip=0.5 if attributes else np.inf)
        for array, values in zip(found, wanted, strict=True):
            part = array[:, d] if array.ndim == 4 else array[d]
            # sigmoid and tanh are polynomials in the kernel, right to a few parts in 1e7
            np.testing.assert_allclose(part, values, atol=1e-5)


def lstm_formula(source, feed, hook, d, clip):
    """One direction of an LSTM whose products are those of codes (the ONNX equations of LSTM)."""
    weights = [hook(array_of(source, name)[d], 0, True) for name in ("w", "r")]
    w, r = (QTensor(t.codes.T, t.qparams) for t in weights)
    initial = source.graph.initializers
    b = array_of(source, "b")[d].reshape(2, -1).sum(axis=0) if "b" in initial else 0
    peep = array_of(source, "p")[d] if "p" in initial else np.zeros(48, np.float32)
    h, c = (feed[n][d] if n in feed else np.zeros((3, 16), np.float32) for n in ("h0", "c0"))
    x = feed["x"][::-1] if d else feed["x"]
    from_x = product(x.reshape(-1, 20), w).reshape(4, 3, -1)
    outputs = []
    for gates in from_x:
        i, o, f, g = np.split(gates + product(h, r) + b, 4, axis=-1)
        pi, po, pf = np.split(peep, 3)
        i, f = (sigmoid(np.clip(z + q * c, -clip, clip)) for z, q in ((i, pi), (f, pf)))
        c = f * c + i * np.tanh(np.clip(g, -clip, clip))
        h = sigmoid(np.clip(o + po * c, -clip, clip)) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs[::-1] if d else outputs), h, c


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("directions", [1, 2])
def test_sequences_of_an_lstm_may_differ_in_length(directions):
    source, model, _ = emitted(lstm(directions, ", b, l", ", int32[B] l"))
    feed = {"x": normal((4, 3, 20)), "l": np.array([4, 2, 1], np.int32)}
    found, wanted = run(model, feed, "all")[0], run(source, feed)[0]
    assert np.all(found[2:, :, 1] == 0) and np.all(found[1:, :, 2] == 0)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("outputs", ['"", h', '"", "", c', "y"])
def test_an_lstm_may_leave_out_outputs(outputs):
    kept = [o for o in ("y", "h", "c") if o in outputs]
    text = lstm(outputs=outputs)
    head, tail = text.split("=> (")
    shapes = {"y": "T, 1, B, 16", "h": "1, B, 16", "c": "1, B, 16"}
    outs = ", ".join(f"float[{shapes[o]}] {o}" for o in kept)
    _, model, _ = emitted(head + f"=> ({outs}) " + tail.split(")", 1)[1])
    assert [n.op_type for n in model.graph] == ["DynamicQuantizeLSTM"]
    assert run(model, {"x": normal((4, 2, 20))}, "all")[0].shape[-1] == 16


def test_a_gru_has_no_integer_kernel_but_a_small_weight():
    text = """g (float[T, 2, 20] x) => (float[T, 1, 2, 24] y)
              <float[1, 72, 20] w, float[1, 72, 24] r>
              { y, h = GRU <hidden_size = 24> (x, w, r) }"""
    _, model, result = emitted(text)
    assert result.nodes[0].why == (
        "onnxruntime has no integer kernel for GRU; its weight has 8 bits, unpacked at load"
    )
    assert optimized(model) == {"GRU": 1}


# -- convolutions --------------------------------------------------------------------------------

CONV = """g (float[2, 8, 9, 9] x) => (float[N, C, H, W] y) <float[20, 8, 3, 3] w, float[20] b>
          { y = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w, b) }"""


@pytest.mark.parametrize("hook", [small, per_tensor])
def test_a_convolution_that_is_named_is_computed_in_integers(hook):
    form = DynamicForm(convolutions={"Conv:y"})
    source, model, result = emitted(CONV, hook, form)
    assert result.nodes[0].integer
    assert "ConvInteger" in [n.op_type for n in model.graph]
    x = normal((2, 8, 9, 9))
    codes, scale, zero_point = dynamic_quantize(x)
    tensor = hook(array_of(source, "w"), 0, True)
    reference = source.clone()
    for name, array in (("w", tensor.codes), ("b", np.zeros(20))):
        value = ir.Tensor(array.astype(np.float32), name=name)
        reference.graph.initializers[name].const_value = value
    [sums] = run(reference, {"x": (codes - zero_point).astype(np.float32)})
    scales = np.broadcast_to(scale * tensor.qparams.scale, 20)[:, None, None]
    wanted = np.rint(sums) * scales + array_of(source, "b")[:, None, None]
    for level in ("disabled", "all"):
        np.testing.assert_allclose(run(model, {"x": x}, level)[0], wanted, rtol=1e-5, atol=1e-5)
    check(model)


def test_other_convolutions_stay_in_float_with_a_small_weight():
    source, model, result = emitted(CONV)
    assert result.nodes[0].why.startswith("integer convolutions are slower")
    assert result.weights == 1
    feed = random_feed(source)
    [wanted], [found] = run(source, feed), run(model, feed, "all")
    # 72 products, each with a weight that is wrong by up to half a step of 1/127
    assert np.abs(found - wanted).max() <= 0.03 * np.abs(wanted).max()
    assert "Cast" not in optimized(model)
    _, kept, result = emitted(CONV, form=DynamicForm(unpack=False))
    assert result.weights == 0
    assert len(saved(model)) < len(saved(kept)) / 2


# -- tables --------------------------------------------------------------------------------------


def test_rows_of_a_table_have_a_scale_each():
    text = """g (int64[N, T] i) => (float[N, T, 40] y) <float[50, 40] w> { y = Gather (w, i) }"""
    weights = {"w": normal((50, 40)) * np.geomspace(1e-3, 1e3, 50, dtype=np.float32)[:, None]}
    source, model, result = emitted(text, weights=weights)
    assert result.nodes[0].integer
    indices = np.array([[0, 49, 7], [-1, -50, 7]])
    wanted = array_of(source, "w")[indices]
    for level in ("disabled", "all"):
        [found] = run(model, {"i": indices}, level)
        step = np.abs(wanted).max(axis=-1, keepdims=True) / 127
        assert np.all(np.abs(found - wanted) <= step * 0.501)
    check(model)
    _, kept, result = emitted(source, form=DynamicForm(tables=False, unpack=False))
    assert saved(kept) == saved(source)


# -- bodies, and all of it -----------------------------------------------------------------------

BODY = """
g (float[N, 80] x, bool c) => (float[N, 24] y, float[N, 24] z) <float[80, 24] w> {
  z = MatMul (x, w)
  y = If (c) <
    then_branch = a () => (float[N, 24] p) { p = MatMul (x, w) },
    else_branch = e () => (float[N, 24] q) { t = MatMul (x, w) q = Neg (t) }
  > }"""


def test_products_inside_of_bodies_are_quantized():
    source, model, result = emitted(BODY)
    assert [plan.integer for plan in result.inner] == [True, True]
    assert result.weights == 1
    x = normal((3, 80))
    wanted = product(x, small(array_of(source, "w"), 1, True))
    for level in ("disabled", "all"):
        for condition, sign in ((True, 1), (False, -1)):
            y, z = run(model, {"x": x, "c": np.array(condition)}, level)
            np.testing.assert_allclose(z, wanted, rtol=1e-6)
            np.testing.assert_allclose(y, sign * wanted, rtol=1e-6)


@pytest.mark.parametrize("text", [BODY, CONV, lstm(2)])
def test_the_same_model_gives_the_same_bytes(text):
    assert saved(emitted(text)[1]) == saved(emitted(text)[1])


def test_no_float_weight_is_left():
    text = """g (int64[T] i) => (float[T, 40] y) <float[50, 64] w, float[64, 40] v>
              { e = Gather (w, i) y = MatMul (e, v) }"""
    source, model, _ = emitted(text)
    assert {"w", "v"} & model.graph.initializers.keys() == set()
    # a byte for each weight, the scales, and the graph
    assert len(saved(model)) < 50 * 64 + 64 * 40 + 4 * (50 + 40) + 1500
    assert len(saved(source)) > 4 * (50 * 64 + 64 * 40)


@pytest.mark.parametrize("text", [BODY, CONV, lstm()])
def test_a_weight_that_is_not_finite_is_named(text):
    model = prepare(text)
    value = model.graph.initializers["w"]
    array = value.const_value.numpy().copy()
    array.flat[5] = np.inf
    value.const_value = ir.Tensor(array, name="w")
    with pytest.raises(CalibrationError, match=r"weight 'w'.*NaN or infinite"):
        emit_dynamic(model)


def test_taken_names_are_not_taken_again():
    text = """g (float[N, 80] x) => (float[N, 24] y, float[80, 24] s) <float[80, 24] w,
              float[80, 24] "w/codes"> { y = MatMul (x, w) s = Identity ("w/codes") }"""
    model = load(text)
    for i, node in enumerate(model.graph):
        node.name = f"node {i}"
    source = model.clone()
    emit_dynamic(model, quantize_weight=of_any_node(small))
    feed = {"x": normal((3, 80))}
    np.testing.assert_array_equal(run(model, feed)[1], run(source, feed)[1])
