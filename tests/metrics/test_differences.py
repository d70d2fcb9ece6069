"""MSE, cosine, SQNR and IoU against the formulas on everything at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import ConfigError
from ptq.metrics import parse_metric
from ptq.numerics.metrics import ErrorSums


def outputs(seed, feeds=4):
    rng = np.random.default_rng(seed)
    float_ = [{"a": rng.normal(size=(2, 3)), "b": rng.normal(size=5)} for _ in range(feeds)]
    other = [{n: v + 0.1 * rng.normal(size=v.shape) for n, v in f.items()} for f in float_]
    return float_, other


def figure(text, reference, got):
    metric = parse_metric(text)
    sums = [metric.measure(g, r, None) for g, r in zip(got, reference, strict=True)]
    return float(metric.figure(np.concatenate(sums).sum(axis=0)))


def flat(feeds, names):
    return np.concatenate([feed[n].ravel() for feed in feeds for n in names])


@given(seed=st.integers(0, 999), names=st.sampled_from(["ab", "a", "b"]))
def test_the_figures_are_those_of_all_values_at_once(seed, names):
    reference, got = outputs(seed)
    x, y = flat(reference, names), flat(got, names)
    option = f":output={names}" if len(names) == 1 else ""
    sums = ErrorSums.of(x, y)
    # sums of fifty float64 in another order
    close = {"rel": 1e-12}
    assert figure(f"mse{option}", reference, got) == pytest.approx(((x - y) ** 2).mean(), **close)
    assert figure(f"cosine{option}", reference, got) == pytest.approx(sums.cosine, **close)
    assert figure(f"sqnr{option}", reference, got) == pytest.approx(sums.sqnr_db, **close)


@pytest.mark.parametrize(
    ("x", "y"),
    [([0.0], [0.0]), ([0.0], [1.0]), ([1.0], [0.0]), ([1.0, 2.0], [1.0, 2.0]), ([2.0], [-2.0])],
)
def test_the_corners_are_those_of_the_error_sums(x, y):
    expected = ErrorSums.of(np.array(x), np.array(y))
    found = [{"y": np.array(x)}], [{"y": np.array(y)}]
    assert figure("sqnr", *found) == expected.sqnr_db
    assert figure("cosine", *found) == expected.cosine


def test_the_float_model_beside_itself_has_the_sums_of_equal_outputs():
    y = {"a": np.random.default_rng(0).normal(size=50)}
    copy = {"a": y["a"].copy()}
    metric = parse_metric("mse")
    np.testing.assert_allclose(metric.measure(y, y, None), metric.measure(copy, y, None))


def test_a_common_infinity_does_not_count():
    x, y = np.array([1.0, -math.inf, 3.0]), np.array([1.5, -math.inf, 3.0])
    assert figure("mse", [{"y": x}], [{"y": y}]) == pytest.approx(0.25 / 2)


# -- IoU -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), threshold=st.sampled_from([-0.5, 0.0, 0.5]))
def test_iou_adds_intersections_and_unions(seed, threshold):
    reference, got = outputs(seed)
    x, y = flat(reference, "ab") > threshold, flat(got, "ab") > threshold
    expected = (x & y).sum() / (x | y).sum()
    assert figure(f"iou:threshold={threshold}", reference, got) == pytest.approx(expected)


@given(seed=st.integers(0, 999))
def test_mean_iou_is_the_mean_over_the_classes_that_occur(seed):
    rng = np.random.default_rng(seed)
    reference = [{"y": rng.normal(size=(1, 4, 3, 3))} for _ in range(3)]
    got = [{"y": f["y"] + 0.5 * rng.normal(size=(1, 4, 3, 3))} for f in reference]
    for feed in (*reference, *got):
        feed["y"][:, 2] = -99  # a class that never occurs
    a, b = (np.concatenate([f["y"].argmax(1).ravel() for f in fs]) for fs in (reference, got))
    shares = [((a == c) & (b == c)).sum() / ((a == c) | (b == c)).sum() for c in (0, 1, 3)]
    assert figure("iou:argmax=1", reference, got) == pytest.approx(np.mean(shares))


def test_mean_iou_needs_one_output_and_an_axis_of_it():
    two = {"a": np.ones((1, 2, 3)), "b": np.ones((1, 2, 3))}
    with pytest.raises(ConfigError, match="several outputs could hold class scores; name one"):
        parse_metric("iou:argmax=1").measure(two, two, None)
    with pytest.raises(ConfigError, match="output 'a' has 3 axes, and argmax=3 is none of them"):
        parse_metric("iou:argmax=3,output=a").measure(two, two, None)
