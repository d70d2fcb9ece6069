"""Folding zero padding keeps the function, and padding that means something else stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.fold_pad import FoldPad

SIDES = st.lists(st.integers(0, 3), min_size=4, max_size=4)


def constant(name, values):
    return f"int64[{len(values)}] {name} = {{{', '.join(map(str, values))}}}"


@given(pad=SIDES, own=SIDES, strides=st.integers(1, 3), dilation=st.integers(1, 2))
def test_into_conv(pad, own, strides, dilation):
    top, left, bottom, right = pad
    model = load(f"""
        g (float[N, 2, 9, 8] x) => (float[N, 3, H, W] y)
        <float[3, 2, 3, 2] w, {constant("p", [0, 0, top, left, 0, 0, bottom, right])}> {{
          q = Pad (x, p)
          y = Conv <pads = {own}, strides = [{strides}, 1], dilations = [1, {dilation}]> (q, w)
        }}""")
    # the same sums over the same numbers, but the kernel may add them in another order
    check_rewrite(FoldPad(), model, count=1, tolerance=1e-6)
    assert op_types(model) == ["Conv"]


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID"])
def test_axes_and_an_explicit_zero(auto_pad):
    model = load(f"""
        g (float[N, 2, 9, 8] x) => (float[N, 3, H, W] y)
        <float[3, 2, 3, 3] w, int64[4] p = {{1, 2, 3, 4}}, float zero = {{0}},
         int64[2] axes = {{-1, 2}}> {{
          q = Pad (x, p, zero, axes)
          y = Conv <auto_pad = "{auto_pad}"> (q, w)
        }}""")
    check_rewrite(FoldPad(), model, count=1, tolerance=1e-6)


@given(pad=SIDES, strides=st.integers(1, 3))
def test_into_average_pool(pad, strides):
    top, left, bottom, right = pad
    model = load(f"""
        g (float[N, 2, 9, 8] x) => (float[N, 2, H, W] y)
        <{constant("p", [0, 0, top, left, 0, 0, bottom, right])}> {{
          q = Pad (x, p)
          y = AveragePool <kernel_shape = [4, 4], strides = [{strides}, 1]> (q)
        }}""")
    check_rewrite(FoldPad(), model, count=1, tolerance=1e-6)
    assert op_types(model) == ["AveragePool"]


@pytest.mark.parametrize("activation", ["Relu (x)", "Sigmoid (x)", "Clip (x, zero, six)"])
def test_into_max_pool_of_what_is_never_negative(activation):
    model = load(f"""
        g (float[N, 2, 9, 8] x) => (float[N, 2, H, W] y)
        <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, float zero = {{0}}, float six = {{6}}> {{
          h = {activation}
          q = Pad (h, p)
          y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (q)
        }}""")
    check_rewrite(FoldPad(), model, count=1)
    assert len(model.graph) == 2


POOL = "kernel_shape = [3, 3]"


@pytest.mark.parametrize(
    ("pad", "consumer"),
    [
        pytest.param('<mode = "reflect"> (x, p)', "Conv (q, w)", id="reflected"),
        pytest.param("(x, p, one)", "Conv (q, w)", id="with ones"),
        pytest.param("(x, p, f)", "Conv (q, w)", id="with an unknown number"),
        pytest.param("(x, channel)", "Conv (q, v)", id="a channel"),
        pytest.param("(x, cut)", "Conv (q, w)", id="cropped"),
        pytest.param("(x, n)", "Conv (q, w)", id="unknown"),
        pytest.param("(x, p)", 'Conv <auto_pad = "SAME_UPPER"> (q, w)', id="auto_pad"),
        pytest.param("(x, p)", f"MaxPool <{POOL}> (q)", id="max of any sign"),
        pytest.param("(x, p)", f"AveragePool <{POOL}, pads = [1, 1, 1, 1]> (q)", id="not counted"),
        pytest.param("(x, p)", f"AveragePool <{POOL}, ceil_mode = 1> (q)", id="ceil_mode"),
        pytest.param("(x, wide)", f"AveragePool <{POOL}> (q)", id="wider than the kernel"),
        pytest.param("(x, p)", "ConvTranspose (q, w)", id="transposed"),
        pytest.param("(x, p)", "Relu (q)", id="no window"),
    ],
)
def test_these_stay(pad, consumer):
    model = load(f"""
        g (float[1, 2, 6, 6] x, int64[8] n, float f) => (float[A, B, C, D] y)
        <float[2, 2, 3, 3] w, float[2, 3, 3, 3] v, float one = {{1}},
         int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, int64[8] channel = {{0, 1, 0, 0, 0, 0, 0, 0}},
         int64[8] cut = {{0, 0, -1, 0, 0, 0, 0, 0}}, int64[8] wide = {{0, 0, 3, 0, 0, 0, 0, 0}}> {{
          q = Pad {pad}
          y = {consumer}
        }}""")
    ones = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    feed = {"x": np.ones((1, 2, 6, 6), np.float32), "n": ones, "f": np.array(1, np.float32)}
    check_rewrite(FoldPad(), model, count=0, feed=feed)


TWO = """
    g (float[1, 2, 6, 6] x, bool c) => (float[A, B, C, D] y, float[E, F, G, H] z)
    <float[2, 2, 3, 3] w, int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> {
      q = Pad (x, p)
      y = Conv (q, w)
      z = READER
    }"""


def test_into_every_consumer():
    model = load(TWO.replace("READER", "AveragePool <kernel_shape = [3, 3]> (q)"))
    check_rewrite(FoldPad(), model, count=1, tolerance=1e-6)
    assert op_types(model) == ["Conv", "AveragePool"]


@pytest.mark.parametrize(
    "reader",
    [
        "Relu (q)",
        "If (c) <then_branch = t () => (float[E, F, G, H] u) { u = Conv (q, w) },"
        " else_branch = e () => (float[E, F, G, H] v) { v = Relu (q) }>",
    ],
)
def test_stays_where_one_consumer_cannot_take_it(reader):
    check_rewrite(FoldPad(), load(TWO.replace("READER", reader)), count=0)
