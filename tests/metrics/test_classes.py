"""Top-k and agreement against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import ConfigError, DataError
from ptq.metrics import parse_metric
from ptq.metrics.class_scores import rank_of


def scores(seed, rows=7, classes=5):
    # few values, so that there are ties
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (rows, classes)).astype(np.float32)


def ranked(row):
    """Classes from best to worst; of equal scores the first counts as better."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


@given(seed=st.integers(0, 999), k=st.integers(1, 4))
def test_top_k_is_among_the_first_k_of_the_sorted_classes(seed, k):
    y, labels = scores(seed), np.random.default_rng(seed).integers(0, 5, 7)
    found = parse_metric(f"topk:k={k}").measure({"y": y}, {"y": y}, labels)
    expected = [label in ranked(row)[:k] for row, label in zip(y, labels, strict=True)]
    assert found.tolist() == [[float(right), 1.0] for right in expected]


@given(seed=st.integers(0, 999), k=st.integers(1, 4))
def test_agreement_is_top_k_where_the_float_model_is_right(seed, k):
    a, b = scores(seed), scores(seed + 1)
    found = parse_metric(f"agreement:k={k}").measure({"y": b}, {"y": a}, None)
    truth = a.argmax(axis=1)
    expected = parse_metric(f"topk:k={k}").measure({"y": b}, {"y": a}, truth)
    np.testing.assert_array_equal(found, expected)


@given(seed=st.integers(0, 999))
def test_the_first_rank_is_argmax(seed):
    y = scores(seed)[np.newaxis]
    assert (rank_of(y, y.argmax(axis=-1)) == 0).all()


def test_the_positions_of_a_sequence_are_one_unit():
    y = np.eye(3, dtype=np.float32)[[[0, 1, 2, 0], [1, 1, 1, 1]]]
    labels = np.array([0, 1, 0, 1, 1, 1, 1, 1])
    metric = parse_metric("topk")
    assert metric.answers({"y": y}) == 8
    assert metric.measure({"y": y}, {"y": y}, labels).tolist() == [[2, 4], [4, 4]]


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_an_error(label):
    y = {"y": scores(0)}
    with pytest.raises(DataError, match=f"label {label} is none of the model's 5 classes"):
        parse_metric("topk").measure(y, y, np.array([0, 0, 0, label, 0, 0, 0]))


@pytest.mark.parametrize("text", ["topk:k=5", "agreement:k=7"])
def test_as_many_as_there_are_classes_say_nothing(text):
    y = {"y": scores(0)}
    with pytest.raises(ConfigError, match="every answer of 5 classes is right; give a smaller k"):
        parse_metric(text).measure(y, y, np.zeros(7, np.int64))


def test_an_output_without_classes_is_an_error():
    y = {"y": np.ones((4, 1))}
    with pytest.raises(DataError, match=r"shape \(4, 1\); class scores need a last axis"):
        parse_metric("agreement:output=y").measure(y, y, None)
