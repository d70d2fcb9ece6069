"""One pass over the data: exact extremes, the same statistics however it was run, little memory."""

import gc
import threading
import weakref
from functools import reduce
from operator import add

import numpy as np
import pytest
from support.models import random_feed
from support.nets import normal, prepare, values

from ptq.data.feeds import hash_feed
from ptq.errors import CalibrationError, DataError
from ptq.graph.taps import tap
from ptq.runtime.observe import observe
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram

IMAGES = """
    g (float[N, 3, H, W] x) => (float[N, 4, A, B] y)
    <float[4, 3, 3, 3] w, float[4] b> {
      t = Conv <pads = [1, 1, 1, 1]> (x, w, b)
      r = Relu (t)
      y = Neg (r)
    }"""
ROWS = """
    g (float[N, 8] x) => (float[N, 5] y) <float[8, 5] w> { t = MatMul (x, w) y = Tanh (t) }"""
TOKENS = """
    g (float[N, T, 8] x, float[8] bias) => (float[N, T, 8] y) <float[8, 8] w> {
      t = MatMul (x, w) s = Add (t, bias) y = Tanh (s) }"""
LINES = (
    "g (float[N, 2, L] x) => (float[N, 3, M] y) <float[3, 2, 3] w> { t = Conv (x, w) y = Abs (t) }"
)

#: Models with the tensors observed and the sizes of their feeds, of which no two are alike.
CASES = {
    "images": (
        IMAGES,
        ["x", "t", "r", "y"],
        [{"N": n, "H": h, "W": h + 7} for n, h in ((1, 32), (2, 20), (1, 45))],
    ),
    "images of one size": (IMAGES, ["t", "x", "r"], [{"N": 1, "H": 24, "W": 24}] * 5),
    "rows": (ROWS, ["x", "t", "y"], [{"N": n} for n in (3, 1, 4, 1, 5)]),
    "tokens": (TOKENS, ["bias", "t", "s", "x"], [{"N": 1, "T": t} for t in (9, 2, 6)]),
    "lines": (LINES, ["x", "t"], [{"N": 2, "L": n} for n in (50, 9, 120)]),
}  # fmt: skip


def case(name):
    text, tensors, sizes = CASES[name]
    model = prepare(text)
    return model, tensors, [random_feed(model, seed, **size) for seed, size in enumerate(sizes)]


def observed(model, tensors, feeds, *, sample_size=64, threads=1, decay=0.9):
    tapped = tap(model, tensors, feed=feeds[0], sample_size=sample_size)
    return observe(tapped, feeds, ema_decay=decay, threads=threads)


def as_arrays(stats):
    """Everything that statistics hold, as bytes."""
    return {
        (name, part, key): array.tobytes()
        for name, of_tensor in stats.items()
        for part in ("minmax", "ema", "hist")
        for key, array in getattr(of_tensor, part).arrays().items()
    }


@pytest.mark.parametrize("sample_size", [16, 64, 10**6])
@pytest.mark.parametrize("name", CASES)
def test_extremes_are_those_of_every_value(name, sample_size):
    model, tensors, feeds = case(name)
    found = observed(model, tensors, feeds, sample_size=sample_size)
    assert found.feeds == len(feeds)
    whole = [values(model, feed, tensors) for feed in feeds]
    for tensor in tensors:
        batches = [batch[tensor] for batch in whole]
        minmax, ema = found.stats[tensor].minmax, found.stats[tensor].ema
        # the runtime may add the products of a convolution in another order than unoptimized
        close = {"rel": 1e-5, "abs": 1e-6}
        assert minmax.hi == pytest.approx(max(b.max() for b in batches), **close)
        assert minmax.lo == pytest.approx(min(b.min() for b in batches), **close)
        if tensor in feeds[0]:
            assert minmax.hi == max(b.max() for b in batches)
        expected = reduce(add, (EmaMinMax.of(b, 0.9) for b in batches))
        assert (ema.lo, ema.hi) == pytest.approx((expected.lo, expected.hi), **close)
        assert (ema.first_lo, ema.first_hi) == pytest.approx(
            (expected.first_lo, expected.first_hi), **close
        )
        assert ema.batches == len(feeds)


@pytest.mark.parametrize("name", ["rows", "tokens", "lines"])
def test_small_tensors_enter_the_histogram_whole(name):
    model, tensors, feeds = case(name)
    found = observed(model, tensors, feeds, sample_size=10**6)
    for tensor in tensors:
        batches = [values(model, feed, [tensor])[tensor] for feed in feeds]
        hist, minmax = found.stats[tensor].hist, found.stats[tensor].minmax
        assert hist.total == minmax.count == sum(b.size for b in batches)
        if tensor in feeds[0]:
            assert hist == Histogram.of(np.concatenate([b.ravel() for b in batches]))


def test_inputs_are_summed_up_exactly():
    model, _, feeds = case("tokens")
    found = observed(model, ["x", "bias"], feeds, sample_size=10**6, decay=0.99)
    for tensor in ("x", "bias"):
        expected = reduce(add, (TensorStats.of(f[tensor]) for f in feeds))
        assert found.stats[tensor].minmax == expected.minmax
        assert found.stats[tensor].hist == expected.hist


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sample_size", [16, 10**6])
def test_threads_make_no_difference_to_a_bit(name, sample_size):
    model, tensors, feeds = case(name)
    feeds = feeds * 3
    runs = [observed(model, tensors, feeds, sample_size=sample_size, threads=n) for n in (1, 2, 4)]
    assert as_arrays(runs[0].stats) == as_arrays(runs[1].stats) == as_arrays(runs[2].stats)
    assert len({r.data_digest for r in runs}) == 1


@pytest.mark.parametrize("name", CASES)
def test_order_and_shards_make_no_difference_to_extremes_and_histograms(name):
    model, tensors, feeds = case(name)
    whole = observed(model, tensors, feeds, sample_size=32)
    tapped = tap(model, tensors, feed=feeds[0], sample_size=32)
    for order in (feeds[::-1], feeds[1:] + feeds[:1]):
        parts = [observe(tapped, shard, ema_decay=0.9) for shard in (order[:1], order[1:])]
        for tensor in tensors:
            merged = parts[0].stats[tensor] + parts[1].stats[tensor]
            assert merged.minmax == whole.stats[tensor].minmax
            assert merged.hist == whole.stats[tensor].hist


@pytest.mark.parametrize("name", ["images of one size", "rows", "tokens"])
def test_feeds_are_kept_out_in_the_same_pass(name):
    model, tensors, feeds = case(name)
    tapped = tap(model, tensors, feed=feeds[0], sample_size=32)
    whole = observe(tapped, feeds, ema_decay=0.9)
    split = observe(tapped, feeds, ema_decay=0.9, keep_out={1})
    others = observe(tapped, feeds[:1] + feeds[2:], ema_decay=0.9)
    assert as_arrays(split.stats) == as_arrays(whole.stats) == as_arrays(whole.without)
    for tensor in tensors:
        without, expected = split.without[tensor], others.stats[tensor]
        assert (without.minmax, without.hist) == (expected.minmax, expected.hist)


def test_shards_in_order_continue_the_moving_averages():
    model, tensors, feeds = case("rows")
    whole = observed(model, tensors, feeds)
    first, second = (observed(model, tensors, shard) for shard in (feeds[:2], feeds[2:]))
    for tensor in tensors:
        merged = (first.stats[tensor] + second.stats[tensor]).ema
        expected = whole.stats[tensor].ema
        assert (merged.lo, merged.hi) == pytest.approx((expected.lo, expected.hi), rel=1e-12)
        assert merged.batches == expected.batches


@pytest.mark.parametrize("sample_size", [4, 10**6])
def test_minus_zero_makes_no_difference_to_a_bit(sample_size):
    model = prepare("g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) { t = Neg (x) y = Abs (t) }")
    zeros = {"x": np.zeros((1, 1, 8, 8), np.float32)}
    feeds = [zeros, {"x": -zeros["x"]}, {"x": -np.abs(normal((1, 1, 8, 8)))}]
    runs = [
        observed(model, ["x", "t"], f, sample_size=sample_size) for f in (feeds[:2], feeds[1::-1])
    ]
    assert as_arrays(runs[0].stats) == as_arrays(runs[1].stats)
    parts = [observed(model, ["t"], [f], sample_size=sample_size).stats["t"].minmax for f in feeds]
    assert not any(np.signbit(m.lo) and not m.lo for m in parts)


def test_the_sample_favours_no_channel():
    # values that tell their channel; a step that divides the width would meet only some of them
    model = prepare("g (float[N, 64] x) => (float[N, 64] y) { y = Neg (x) }")
    feeds = [{"x": np.tile(np.arange(1, 65, dtype=np.float32), (512, 1))}]
    found = observed(model, ["x"], feeds, sample_size=1024)
    hist = found.stats["x"].hist
    counts = hist.counts[hist.counts > 0]
    assert counts.size == 64
    assert counts.max() <= 2 * counts.min()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_digest_is_that_of_the_data(threads):
    import hashlib

    model, tensors, feeds = case("images")
    expected = hashlib.sha256()
    for feed in feeds:
        hash_feed(expected, feed)
    assert observed(model, tensors, feeds, threads=threads).data_digest == expected.hexdigest()


# -- what cannot be summed up --------------------------------------------------------------------

#: Intermediate values that are not finite although the input is.
DIVISION = """
    g (float[1, 2, H, W] x) => (float[1, 2, H, W] y) {
      t = {} (x)
      y = Neg (t)
    }"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sample_size", [16, 10**6], ids=["reduced", "whole"])
@pytest.mark.parametrize(
    ("op_type", "bad"),
    [("Sqrt", -1.0), ("Log", -1.0), ("Log", 0.0), ("Reciprocal", 0.0), ("Exp", 100.0)],
)
def test_a_value_that_is_not_finite_is_an_error_with_tensor_and_sample(
    op_type, bad, sample_size, threads
):
    model = prepare(DIVISION.replace("{} (x)", f"{op_type} (x)"))
    feeds = [{"x": np.abs(normal((1, 2, 24, 24), seed)) + 0.1} for seed in range(4)]
    feeds[2]["x"][0, 1, 13, 7] = bad  # beside the regular sample
    with pytest.raises(CalibrationError, match=r"tensor 't' takes a NaN or infinite value in.* 2;"):
        observed(model, ["t"], feeds, sample_size=sample_size, threads=threads)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_input_that_is_not_finite_is_an_error_with_its_name(bad):
    model, tensors, feeds = case("images of one size")
    feeds[1]["x"][0, 0, 3, 5] = bad
    with pytest.raises(
        CalibrationError, match=r"tensor '[xt]' takes a NaN or infinite value in.* 1;"
    ):
        observed(model, tensors, feeds)
    with pytest.raises(CalibrationError, match="tensor 'x' takes"):
        observed(model, ["x"], feeds)


def test_no_feed_is_an_error():
    model, tensors, feeds = case("rows")
    tapped = tap(model, tensors, feed=feeds[0], sample_size=64)
    with pytest.raises(CalibrationError, match="there is no calibration sample"):
        observe(tapped, [], ema_decay=0.9)


def test_an_empty_tensor_does_not_count():
    model = prepare(ROWS)
    feeds = [{"x": normal((n, 8), n)} for n in (0, 3, 0, 2)]
    found = observed(model, ["x", "t"], feeds, sample_size=10**6)
    assert found.stats["x"].ema.batches == 2
    assert found.stats["x"].minmax.count == 40
    assert found.stats["x"].hist == Histogram.of(np.concatenate([f["x"] for f in feeds]))
    assert found.stats["t"].minmax.count == 25


def test_an_empty_image_does_not_count_either():
    model = prepare(IMAGES)
    full = random_feed(model, N=1, H=32, W=32)
    empty = {"x": np.zeros((0, 3, 32, 32), np.float32)}
    alone = observed(model, ["t", "r"], [full])
    found = observed(model, ["t", "r"], [full, empty])
    for tensor in "tr":
        assert found.stats[tensor].minmax == alone.stats[tensor].minmax
        assert found.stats[tensor].ema.batches == 1


def test_a_tensor_that_is_always_empty_is_an_error():
    model = prepare(ROWS)
    with pytest.raises(CalibrationError, match="tensor 't' was empty in every calibration sample"):
        observed(model, ["t"], [{"x": np.zeros((0, 8), np.float32)}])


def test_a_feed_that_does_not_fit_is_an_error():
    model, tensors, feeds = case("rows")
    feeds[1] = {"x": normal((3, 9))}
    with pytest.raises(DataError, match="onnxruntime fails on a calibration sample"):
        observed(model, tensors, feeds)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_in_the_data_comes_through(threads):
    model, tensors, feeds = case("rows")

    def broken():
        yield from feeds
        raise DataError("sample 5 is damaged")

    tapped = tap(model, tensors, feed=feeds[0], sample_size=64)
    with pytest.raises(DataError, match="sample 5 is damaged"):
        observe(tapped, broken(), ema_decay=0.9, threads=threads)
    assert not [t for t in threading.enumerate() if t.name.startswith("ptq-observe")]


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_few_feeds_are_alive_at_once(threads):
    model = prepare(IMAGES)
    alive, most = set(), [0]

    def feeds():
        for seed in range(20):
            x = normal((1, 3, 16, 16), seed)
            key = id(x), seed
            alive.add(key)
            weakref.finalize(x, alive.discard, key)
            most[0] = max(most[0], len(alive))
            yield {"x": x}
            del x

    first = {"x": normal((1, 3, 16, 16))}
    tapped = tap(model, ["x", "t"], feed=first, sample_size=64)
    found = observe(tapped, feeds(), ema_decay=0.9, threads=threads)
    assert found.feeds == 20
    gc.collect()
    assert most[0] <= threads + 2
    assert not alive


def test_what_is_kept_does_not_grow_with_the_samples(monkeypatch):
    """Buffers of samples are counted away: their views must not hold the feeds."""
    monkeypatch.setattr("ptq.runtime.observe._BUFFERED", 1 << 12)
    model = prepare("g (float[N] x) => (float[N] y) { y = Neg (x) }")
    alive, most = set(), [0]

    def feeds():
        for seed in range(50):
            x = normal((1 << 10,), seed)
            key = id(x), seed
            alive.add(key)
            weakref.finalize(x, alive.discard, key)
            most[0] = max(most[0], len(alive))
            yield {"x": x}
            del x

    tapped = tap(model, ["x"], feed={"x": normal((4,))}, sample_size=1 << 20)
    observe(tapped, feeds(), ema_decay=0.9)
    # four of them fill the buffer
    assert most[0] <= 4 + 3


def test_progress_is_told_of_every_feed():
    model, tensors, feeds = case("rows")
    told = []
    tapped = tap(model, tensors, feed=feeds[0], sample_size=64)
    observe(tapped, feeds, ema_decay=0.9, threads=2, on_feed=lambda: told.append(1))
    assert len(told) == len(feeds)
