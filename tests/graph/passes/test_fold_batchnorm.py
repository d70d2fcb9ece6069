"""Folding batchnorm keeps the function, whatever the operator, the groups and the neighbours."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import check_rewrite, load, node_of, op_types, random_feed, run

from ptq.graph.passes.fold_batchnorm import FoldBatchNorm

# Folding rounds weight * scale once to float32 (2^-24 relative), and the operator sums at most a
# few hundred such products: 1e-5 of the largest output leaves a factor of 10.
TOLERANCE = 1e-5

BATCHNORM = "y = BatchNormalization <epsilon = 0.01> (h, gamma, beta, mean, var)"


def declare(channels):
    return ", ".join(f"float[{channels}] {name}" for name in ("gamma", "beta", "mean", "var"))


@dataclass(frozen=True)
class Shape:
    groups: int
    inputs: int  # per group
    outputs: int  # per group
    bias: bool


SHAPES = st.builds(Shape, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())


@given(shape=SHAPES, pads=st.integers(0, 2), strides=st.integers(1, 2))
def test_behind_conv(shape, pads, strides):
    channels = shape.groups * shape.outputs
    model = load(f"""
        g (float[N, {shape.groups * shape.inputs}, 7, 7] x) => (float[N, C, H, W] y)
        <float[{channels}, {shape.inputs}, 3, 3] w, float[{channels}] b, {declare(channels)}> {{
          h = Conv <group = {shape.groups}, pads = [{pads}, {pads}, 0, 1], strides = [{strides}, 1]>
              (x, w{", b" if shape.bias else ""})
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Conv"]


@given(shape=SHAPES)
def test_behind_conv_transpose_of_any_groups(shape):
    channels = shape.groups * shape.outputs
    model = load(f"""
        g (float[N, {shape.groups * shape.inputs}, 4, 4] x) => (float[N, C, H, W] y)
        <float[{shape.groups * shape.inputs}, {shape.outputs}, 3, 3] w, float[{channels}] b,
         {declare(channels)}> {{
          h = ConvTranspose <group = {shape.groups}, strides = [2, 2]>
              (x, w{", b" if shape.bias else ""})
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["ConvTranspose"]


@given(
    transposed=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, 2.0, 0.0]),
    bias=st.sampled_from([None, "[]", "[1]", "[5]", "[1, 5]", "[1, 1]"]),
)
def test_behind_gemm_with_its_factors(transposed, alpha, beta, bias):
    model = load(f"""
        g (float[N, 3] x) => (float[N, 5] y)
        <float{[5, 3] if transposed else [3, 5]} w, float{bias or "[1]"} b, {declare(5)}> {{
          h = Gemm <transB = {int(transposed)}, alpha = {alpha}, beta = {beta}>
              (x, w{", b" if bias else ""})
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Gemm"]


def test_behind_gemm_whose_bias_differs_by_row_stays():
    model = load(f"""
        g (float[2, 3] x) => (float[2, 5] y) <float[3, 5] w, float[2, 5] b, {declare(5)}> {{
          h = Gemm (x, w, b)
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=0)


@pytest.mark.parametrize(
    "linear",
    ["h = MatMul (x, w)", "m = MatMul (x, w) h = Add (m, b)", "m = MatMul (x, w) h = Add (b, m)"],
)
def test_behind_matmul_the_shift_becomes_a_bias(linear):
    model = load(f"""
        g (float[N, 3] x) => (float[N, 5] y) <float[3, 5] w, float[5] b, {declare(5)}> {{
          {linear}
          {BATCHNORM}
        }}""")
    # only in rank 2 are the channels last, so the rank must be known
    node_of(model, "BatchNormalization").inputs[0].shape = ir.Shape(["N", 5])
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["MatMul", "Add"]


def test_behind_matmul_of_unknown_rank_stays():
    model = load(f"""
        g (float[N, 3] x) => (float[N, 5] y) <float[3, 5] w, {declare(5)}> {{
          h = MatMul (x, w)
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=0)


@given(shape=SHAPES, auto_pad=st.sampled_from(["NOTSET", "VALID"]))
def test_in_front_of_a_conv_without_padding(shape, auto_pad):
    inputs = shape.groups * shape.inputs
    model = load(f"""
        g (float[N, {inputs}, 7, 7] h) => (float[N, C, H, W] z)
        <float[{shape.groups * shape.outputs}, {shape.inputs}, 3, 3] w,
         float[{shape.groups * shape.outputs}] b, {declare(inputs)}> {{
          {BATCHNORM}
          z = Conv <group = {shape.groups}, auto_pad = "{auto_pad}">
              (y, w{", b" if shape.bias else ""})
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Conv"]


PADDED = f"""
    g (float[N, 3, 7, 7] h) => (float[N, C, H, W] z) <float[4, 3, 3, 3] w, {declare(3)}> {{
      {BATCHNORM}
      z = Conv <PADS> (y, w)
    }}"""


@pytest.mark.parametrize("pads", ["pads = [0, 0, 0, 1]", 'auto_pad = "SAME_UPPER"'])
def test_in_front_of_a_conv_that_pads_it_stays(pads):
    check_rewrite(FoldBatchNorm(), load(PADDED.replace("PADS", pads)), count=0)


def test_in_front_of_a_conv_that_pads_a_scale_alone_folds():
    zero = np.zeros(3, np.float32)
    model = load(PADDED.replace("PADS", "pads = [1, 1, 1, 1]"), {"beta": zero, "mean": zero})
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)


@pytest.mark.parametrize("transposed", [False, True])
def test_in_front_of_gemm(transposed):
    model = load(f"""
        g (float[N, 3] h) => (float[N, 5] z)
        <float{[5, 3] if transposed else [3, 5]} w, float[5] b, {declare(3)}> {{
          {BATCHNORM}
          z = Gemm <transB = {int(transposed)}, alpha = 0.5, beta = 2.0> (y, w, b)
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Gemm"]


def test_a_weight_that_two_convolutions_share_is_not_spoiled():
    model = load(f"""
        g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] z)
        <float[4, 3, 1, 1] w, float[4] b, {declare(4)}> {{
          h = Conv (x, w, b)
          {BATCHNORM}
          z = Conv (x, w, b)
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)
    first, second = model.graph
    assert second.inputs[1].name == "w"
    assert first.inputs[1] is not second.inputs[1]
    assert first.inputs[2] is not second.inputs[2]


def test_parameters_that_are_graph_outputs_are_not_spoiled():
    model = load(f"""
        g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y, float[4, 3, 1, 1] w)
        <float[4, 3, 1, 1] w, {declare(4)}> {{
          h = Conv (x, w)
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=1, tolerance=TOLERANCE)


@pytest.mark.parametrize(
    "reader",
    [
        pytest.param("z = Relu (h)", id="another node"),
        pytest.param(
            "z = If (c) <then_branch = t () => (float[N, 4, 5, 5] u) { u = Relu (h) },"
            " else_branch = e () => (float[N, 4, 5, 5] v) { v = Neg (h) }>",
            id="a subgraph",
        ),
    ],
)
def test_a_convolution_that_somebody_else_reads_stays(reader):
    model = load(f"""
        g (float[N, 3, 5, 5] x, bool c) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] z)
        <float[4, 3, 1, 1] w, {declare(4)}> {{
          h = Conv (x, w)
          {BATCHNORM}
          {reader}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=0)


def test_a_convolution_that_is_an_output_stays():
    model = load(f"""
        g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] h)
        <float[4, 3, 1, 1] w, {declare(4)}> {{
          h = Conv (x, w)
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=0)


def test_training_mode_stays():
    model = load(f"""
        g (float[2, 3, 5, 5] x) => (float[2, 4, 5, 5] y) <float[4, 3, 1, 1] w, {declare(4)}> {{
          h = Conv (x, w)
          y, m, v = BatchNormalization <training_mode = 1> (h, gamma, beta, mean, var)
        }}""")
    assert FoldBatchNorm()(model).count == 0


def test_behind_add_stays():
    model = load(f"""
        g (float[N, 4, 5, 5] a, float[N, 4, 5, 5] b) => (float[N, 4, 5, 5] y) <{declare(4)}> {{
          h = Add (a, b)
          {BATCHNORM}
        }}""")
    check_rewrite(FoldBatchNorm(), model, count=0)


def test_names_survive_and_new_ones_are_free():
    model = load(f"""
        g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] z)
        <float[4, 3, 1, 1] w, float[4] conv_bias, {declare(4)}> {{
          h = Conv (x, w)
          {BATCHNORM}
          s = Relu (y)
          z = Mul (s, s)
        }}""")
    model.graph[0].name = "conv"
    FoldBatchNorm()(model)
    conv = model.graph[0]
    assert conv.outputs[0].name == "y"
    assert [v.name for v in conv.inputs] == ["x", "w", "conv.bias"]


def test_wrong_parameters_are_left_to_the_runtime():
    model = load(f"""
        g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) <float[4, 3, 1, 1] w, {declare(5)}> {{
          h = Conv (x, w)
          {BATCHNORM}
        }}""")
    assert FoldBatchNorm()(model).count == 0


def test_deep_batchnorm_agrees_with_onnxruntime_on_a_chain():
    layers = "\n".join(
        f"c{i} = Conv <pads = [1, 1, 1, 1]> (x{i}, w)\n"
        f"n{i} = BatchNormalization (c{i}, gamma, beta, mean, var)\n"
        f"x{i + 1} = Relu (n{i})"
        for i in range(4)
    )
    model = load(
        f"g (float[N, 4, 8, 8] x0) => (float[N, 4, 8, 8] x4) <float[4, 4, 3, 3] w, {declare(4)}>"
        f"{{ {layers} }}"
    )
    before = run(model, feed := random_feed(model))
    assert FoldBatchNorm()(model).count == 4
    [old], [new] = before, run(model, feed)
    # four layers, each with the error of one
    assert np.abs(old - new).max() <= 4 * TOLERANCE * np.abs(old).max()
