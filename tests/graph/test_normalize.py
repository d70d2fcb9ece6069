"""Normalizing keeps what a model computes, its inputs and outputs, and is done in one go."""

import logging
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import assert_close, load, op_types, random_feed, run

from ptq.errors import PtqError, UnsupportedError
from ptq.graph.check import Signature
from ptq.graph.load import load_model
from ptq.graph.normalize import normalize
from ptq.graph.save import to_bytes

# Folding rounds every weight of a layer once more (2^-24 relative), and its sums are made in
# another order; through the depth of the models here that stays below 1e-4 of the largest output.
TOLERANCE = 1e-4


def check_normalize(model, *, feed=None, tolerance=TOLERANCE):
    feed = random_feed(model) if feed is None else feed
    signature, before = Signature.of(model), run(model, feed)
    notes = normalize(model)
    assert Signature.of(model) == signature
    assert_close(before, run(onnx.ModelProto.FromString(to_bytes(model)), feed), tolerance)
    assert normalize(model) == []
    return notes


NET = """
    g (float[N, 3, 16, 16] image) => (float[N, 10] logits, float[N, 8, 7, 7] features)
    <float[8, 3, 3, 3] w0, float[8] g0, float[8] b0, float[8] m0, float[8] var0,
     float[8, 1, 3, 3] w1, float[8] g1, float[8] b1, float[8] m1, float[8] var1,
     float[8, 8, 1, 1] w2, float[8, 1, 1] k2, float[10, 8] w3, float[10] b3> {
      padded = Pad <pads = [0, 0, 1, 1, 0, 0, 2, 2]> (image)
      c0 = Conv <strides = [2, 2]> (padded, w0)
      n0 = BatchNormalization (c0, g0, b0, m0, var0)
      r0 = Relu (n0)
      d0 = Dropout <ratio = 0.1> (r0)
      c1 = Conv <group = 8> (d0, w1)
      n1 = BatchNormalization (c1, g1, b1, m1, var1)
      r1 = Clip <min = 0.0, max = 6.0> (n1)
      c2 = Conv (r1, w2)
      features = Mul (c2, k2)
      s = Shape (image)
      zero = Constant <value = int64 {0}> ()
      batch = Gather <axis = 0> (s, zero)
      axis = Unsqueeze <axes = [0]> (batch)
      minus = Constant <value = int64[1] {-1}> ()
      shape = Concat <axis = 0> (axis, minus)
      pooled = GlobalAveragePool (features)
      flat = Reshape (pooled, shape)
      logits = Gemm <transB = 1> (flat, w3, b3)
    }"""


@pytest.mark.parametrize("opset", [9, 10])
def test_a_network_of_an_old_opset(opset):
    model = load(NET, opset=opset)
    notes = check_normalize(model)
    counts = Counter(op_types(model))
    assert counts["Conv"] == 3
    assert counts["Relu"] == counts["Clip"] == 1
    assert not {"Pad", "BatchNormalization", "Dropout", "Constant", "Mul"} & counts.keys()
    assert f"opset: {opset} converted to 21" in notes
    assert "batchnorm: 2 folded" in notes
    assert "pad: 1 folded" in notes


def test_a_dynamic_batch_stays_dynamic():
    model = load(NET, opset=10)
    images = {n: random_feed(model, N=n) for n in (1, 3)}
    before = {n: run(model, feed) for n, feed in images.items()}
    normalize(model)
    for n, feed in images.items():
        assert_close(before[n], run(model, feed), TOLERANCE)


def test_shape_arithmetic_over_a_dynamic_batch_becomes_constant_pads():
    model = load("""
        g (float[N, 3, 8, 8] x) => (float[N, 4, H, W] y)
        <float[4, 3, 3, 3] w, int64[1] v0 = {0},
         int64 i2 = {2}, int64 eight = {8}, int64 one = {1}> {
          s = Shape (x)
          height = Gather (s, i2)
          missing = Sub (height, eight)
          more = Add (missing, one)
          vector = Unsqueeze (more, v0)
          two = Constant <value = int64[1] {2}> ()
          zeros = ConstantOfShape <value = int64[1] {0}> (two)
          pads = Concat <axis = 0> (zeros, vector, vector, zeros, vector, vector)
          padded = Pad (x, pads)
          y = Conv (padded, w)
        }""")
    check_normalize(model)
    assert op_types(model) == ["Conv"]
    assert model.graph[0].attributes["pads"].as_ints() == (1, 1, 1, 1)


def test_weights_made_by_expressions_become_constants():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 6, 5, 5] y)
        <float[4, 6] v, float[6, 1] scale, int64[4] shape = {6, 4, 1, 1}, float16[6] half> {
          t = Transpose <perm = [1, 0]> (v)
          square = Mul (t, t)
          axis = Constant <value = int64[1] {1}> ()
          sum = ReduceSum (square, axis)
          norm = Sqrt (sum)
          unit = Div (t, norm)
          scaled = Mul (unit, scale)
          w = Reshape (scaled, shape)
          b = Cast <to = 1> (half)
          y = Conv (x, w, b)
        }""")
    check_normalize(model)
    assert op_types(model) == ["Conv"]


@given(
    padding=st.booleans(),
    shared=st.booleans(),
    groups=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3]),
    extra=st.sampled_from(["Relu (n)", "Mul (n, k)", "Add (k, n)", "Identity (n)", "Sub (k, n)"]),
    second=st.sampled_from(
        ["Conv (e, w2)", "ConvTranspose (e, w2)", "AveragePool <kernel_shape = [2, 2]> (e)"]
    ),
)
def test_compositions(padding, shared, groups, kernel, extra, second):
    model = load(f"""
        g (float[N, 4, 7, 7] x) => (float[N, A, B, C] y, float[N, D, E, F] z)
        <float[4, {4 // groups}, {kernel}, {kernel}] w, float[4, 4, 2, 2] w2,
         float[4] g, float[4] b, float[4] m, float[4] var, float[4, 1, 1] k,
         int64[8] p = {{0, 0, {int(padding)}, 0, 0, 0, 1, {int(padding)}}}> {{
          q = Pad (x, p)
          c = Conv <group = {groups}> (q, w)
          n = BatchNormalization (c, g, b, m, var)
          e = {extra}
          y = {second}
          z = {f"Conv <group = {groups}> (q, w)" if shared else "Neg (e)"}
        }}""")
    check_normalize(model)
    assert "BatchNormalization" not in op_types(model)


def test_control_flow_is_left_as_it_is_and_valid():
    model = load(
        """
        g (float[N, 4, 5, 5] x, bool c) => (float[N, 4, 5, 5] y)
        <float[4, 4, 1, 1] w, float[4] g, float[4] b, float[4] m, float[4] var, float[4, 1, 1] k> {
          h = Conv (x, w)
          n = BatchNormalization (h, g, b, m, var)
          s = Identity (n)
          y = If (c) <then_branch = t () => (float[N, 4, 5, 5] u) {
                          i = Conv (s, w)
                          j = BatchNormalization (i, g, b, m, var)
                          u = Mul (j, k) },
                      else_branch = e () => (float[N, 4, 5, 5] v) { v = Neg (h) }>
        }""",
        opset=13,
    )
    feeds = [random_feed(model) | {"c": np.array(flag)} for flag in (True, False)]
    before = [run(model, feed) for feed in feeds]
    normalize(model)
    for old, feed in zip(before, feeds, strict=True):
        assert_close(old, run(model, feed), TOLERANCE)
    # ``h`` is read inside, so the batchnorm behind it must stay
    assert op_types(model) == ["Conv", "BatchNormalization", "If"]
    then = next(node for node in model.graph if node.op_type == "If").attributes["then_branch"]
    assert [node.op_type for node in then.as_graph()] == ["Conv", "BatchNormalization", "Mul"]


def test_every_name_that_can_survive_does():
    model = load(NET, opset=10)
    normalize(model)
    names = {value.name for node in model.graph for value in node.outputs}
    assert {"n0", "r0", "n1", "r1", "features", "pooled", "flat", "logits"} <= names
    assert {"w0", "w1", "w2", "w3", "b3"} <= model.graph.initializers.keys()


def test_functions_and_initializers_among_the_inputs():
    model = load("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> { y = local.layer (x, w) }
        <opset_import: ["" : 17], domain: "local"> layer (a, w) => (b) {
          h = MatMul (a, w)
          two = Constant <value_float = 2.0> ()
          b = Mul (h, two)
        }""")
    notes = check_normalize(model)
    assert op_types(model) == ["MatMul"]
    assert "functions: 1 inlined" in notes


def test_too_new_an_opset():
    with pytest.raises(UnsupportedError, match="opset 27"):
        normalize(load("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=27))


def test_weights_that_nothing_changed_are_not_copied():
    model = load(
        "g (float[N, 64] x) => (float[N, 64] y) <float[64, 64] w> { y = MatMul (x, w) }", opset=11
    )
    tensor = model.graph.initializers["w"].const_value
    normalize(model)
    assert model.graph.initializers["w"].const_value is tensor


def test_it_says_nothing_but_what_it_returns(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        normalize(load("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=11))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")


def chain(length):
    """Return a model of convolution, batchnorm and relu, so many times over."""
    declared = ", ".join(
        f"float[4, 4, 1, 1] w{i}, float[4] g{i}, float[4] b{i}, float[4] m{i}, float[4] var{i}"
        for i in range(length)
    )
    body = "\n".join(
        f"c{i} = Conv (x{i}, w{i}) n{i} = BatchNormalization (c{i}, g{i}, b{i}, m{i}, var{i})"
        f" x{i + 1} = Relu (n{i})"
        for i in range(length)
    )
    return load(
        f"g (float[N, 4, 2, 2] x0) => (float[N, 4, 2, 2] x{length}) <{declared}>{{ {body} }}",
        opset=13,
    )


def test_time_grows_with_the_size_and_not_with_its_square():
    seconds = []
    for length in (100, 400):
        model = chain(length)
        start = time.process_time()
        normalize(model)
        seconds.append(time.process_time() - start)
        assert len(model.graph) == 2 * length
    # four times the nodes; sixteen times the time would be the square
    assert seconds[1] < 9 * seconds[0]


# ------------------------------------------------------------------ models in the wild


WHEEL = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


@pytest.mark.parametrize("path", WHEEL, ids=lambda path: "/".join(path.parts[-3:-1]) + path.stem)
def test_models_of_the_onnx_wheel_are_normalized_or_refused(path):
    try:
        model = load_model(path)
        normalize(model)
    except PtqError as error:
        assert "PRelu" in str(error)
        return
    content = to_bytes(model)
    onnx.checker.check_model(content)
    assert normalize(model) == []


@pytest.mark.slow
def test_zoo_models_compute_the_same(zoo):
    for entry in zoo.values():
        path = Path(entry.onnx)
        model = load_model(path)
        normalize(model)
        for feed in entry.calib(1):
            assert_close(run(path, feed), run(model, feed), TOLERANCE)
