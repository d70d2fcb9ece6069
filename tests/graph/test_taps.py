"""The tapped model puts out what its probes say, and nothing that it need not compute."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.models import load, random_feed
from support.nets import normal, prepare, values

from ptq.errors import ModelError
from ptq.graph.taps import EXTREMES, tap

NET = """
    g (float[N, 3, H, W] x) => (float[N, 4, A, B] y)
    <float[4, 3, 3, 3] w, float[4, 4, 1, 1] v, float zero = {0}, float six = {6}> {
      t = Conv <pads = [1, 1, 1, 1]> (x, w)
      r = Relu (t)
      c = Clip (t, zero, six)
      s = Conv (r, v)
      y = Add (s, c)
    }"""


def run(tapped, feed):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(tapped.model, options, providers=["CPUExecutionProvider"])
    return dict(zip(tapped.outputs, session.run(tapped.outputs, feed), strict=True))


def extremes(tapped, found, tensor):
    [probe] = [p for p in tapped.probes if p.tensor == tensor]
    gathered = found[EXTREMES].reshape(-1)
    lo = 0.0 if probe.negated_lo is None else -gathered[probe.negated_lo]
    return lo, gathered[probe.hi]


def test_small_tensors_come_out_whole():
    model = prepare(NET)
    feed = random_feed(model, N=2, H=8, W=9)
    tapped = tap(model, ["t", "s"], feed=feed, sample_size=10**6)
    assert [(p.tensor, p.sample, p.hi) for p in tapped.probes] == [
        ("t", "t", None),
        ("s", "s", None),
    ]
    assert tapped.outputs == ("t", "s")
    expected = values(model, feed, ["t", "s"])
    for name, found in run(tapped, feed).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 31, 17), (2, 9, 64), (1, 2, 200)])
def test_large_images_are_reduced_to_exact_extremes_and_a_regular_sample(shape):
    batch, height, width = shape
    model = prepare(NET)
    feed = random_feed(model, N=batch, H=height, W=width)
    names = ["t", "r", "c", "s", "y"]
    tapped = tap(model, names, feed=feed, sample_size=64)
    found, expected = run(tapped, feed), values(model, feed, names)
    for probe in tapped.probes:
        whole = expected[probe.tensor]
        assert probe.hi is not None
        assert found[probe.sample].size < whole.size
        lo, hi = extremes(tapped, found, probe.tensor)
        # the same convolution in another layout, which may add in another order
        assert hi == pytest.approx(whole.max(), rel=1e-5)
        assert lo == pytest.approx(min(whole.min(), 0.0), rel=1e-5)
        stride = -(-whole.shape[3] // found[probe.sample].shape[3])
        np.testing.assert_allclose(
            found[probe.sample], whole[:, :, ::stride, ::stride], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("clip", "never_negative"),
    [
        ("Clip (t, zero, six)", True),
        ("Clip (t, zero)", True),
        ("Clip (t, minus, six)", False),
        ("Clip (t, , six)", False),
        ("Clip (t)", False),
        ("Sigmoid (t)", True),
        ("Abs (t)", True),
        ("Tanh (t)", False),
        ("LeakyRelu (t)", False),
    ],
)
def test_the_minimum_is_left_out_only_where_it_is_zero_or_more(clip, never_negative):
    model = prepare(NET.replace("c = Clip (t, zero, six)", f"c = {clip}").replace(
        "float zero", "float minus = {-1}, float zero"))  # fmt: skip
    feed = random_feed(model, N=1, H=32, W=32)
    tapped = tap(model, ["c"], feed=feed, sample_size=64)
    [probe] = tapped.probes
    assert (probe.negated_lo is None) == never_negative
    whole = values(model, feed, ["c"])["c"]
    lo, hi = extremes(tapped, run(tapped, feed), "c")
    assert hi == pytest.approx(whole.max(), rel=1e-5)
    assert lo == pytest.approx(0.0 if never_negative else whole.min(), rel=1e-5)
    assert not never_negative or whole.min() >= 0


def test_what_cannot_be_negative_has_no_second_extreme():
    model = prepare(NET)
    feed = random_feed(model, N=1, H=32, W=32)
    tapped = tap(model, ["t", "r", "c"], feed=feed, sample_size=64)
    assert [p.negated_lo is None for p in tapped.probes] == [False, True, True]
    # three maxima, one minimum, and what tells of NaN in each of the three
    assert run(tapped, feed)[EXTREMES].shape == (1, 7, 1, 1)


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 10**4, 10**6])
def test_the_sample_is_about_as_large_as_asked(size):
    model = prepare(NET)
    feed = random_feed(model, N=1, H=64, W=64)
    tapped = tap(model, ["t"], feed=feed, sample_size=size)
    found = run(tapped, feed)[tapped.probes[0].sample].size
    # a stride is a whole number: the sample is up to four times as large, and never smaller
    assert min(size, 4 * 64 * 64) <= found <= max(4.5 * size, 4)


def test_inputs_are_read_from_the_feed():
    model = prepare(NET)
    feed = random_feed(model, N=1, H=8, W=8)
    tapped = tap(model, ["x"], feed=feed, sample_size=64)
    assert tapped.inputs == ("x",)
    assert tapped.probes == tapped.outputs == ()


def test_what_comes_after_the_last_tap_is_not_run():
    model = prepare(NET)
    feed = random_feed(model, N=1, H=8, W=8)
    tapped = tap(model, ["t"], feed=feed, sample_size=10**6)
    graph = onnx.load_from_string(tapped.model).graph
    assert [n.op_type for n in graph.node] == ["Conv"]


def test_the_model_itself_is_not_changed():
    model = prepare(NET)
    feed = random_feed(model, N=1, H=32, W=32)
    before = [(n.name, [v.name for v in n.outputs]) for n in model.graph]
    tap(model, ["t", "y"], feed=feed, sample_size=64)
    assert [(n.name, [v.name for v in n.outputs]) for n in model.graph] == before
    assert [v.name for v in model.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    ("shape", "rank"), [("8", 1), ("3, 8", 2), ("2, 3, 80", 3), ("1, 2, 3, 4, 50", 5)]
)
def test_tensors_that_are_no_images_come_out_whole(shape, rank):
    model = prepare(f"g (float[{shape}] x) => (float[{shape}] y) {{ t = Neg (x) y = Abs (t) }}")
    feed = random_feed(model)
    tapped = tap(model, ["t"], feed=feed, sample_size=2)
    assert tapped.probes[0].hi is None
    assert run(tapped, feed)["t"].ndim == rank
    np.testing.assert_array_equal(run(tapped, feed)["t"], -feed["x"])


def test_a_tensor_that_does_not_exist_is_an_error():
    model = prepare(NET)
    with pytest.raises(ModelError, match="tensor 'nobody' is not in the model"):
        tap(model, ["nobody"], feed=random_feed(model, N=1, H=8, W=8), sample_size=9)


def test_a_tensor_that_an_if_reads_can_be_tapped():
    model = load("""
        g (float[1, 4, 32, 32] x, bool c) => (float[A, B, C, D] y) <float[4, 4, 1, 1] w> {
          t = Conv (x, w)
          s = If (c) <
            then_branch = a () => (float[A, B, C, D] p) { p = Relu (t) },
            else_branch = e () => (float[A, B, C, D] q) { q = Neg (t) }>
          y = Abs (s)
        }""")
    prepare(model)
    feed = {"x": normal((1, 4, 32, 32)), "c": np.array(False)}
    tapped = tap(model, ["t", "s"], feed=feed, sample_size=64)
    found, expected = run(tapped, feed), values(model, feed, ["t", "s"])
    for name in "ts":
        ends = expected[name].min(), expected[name].max()
        assert extremes(tapped, found, name) == pytest.approx(ends, rel=1e-5)
