"""Streaming comparison against numpy on everything at once."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import DataError, VerificationError
from ptq.evaluate.accuracy import compare


@dataclass
class Canned:
    """A session that gives prepared outputs: the feed ``i`` names the row of each table."""

    tables: dict

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self.tables]

    def run(self, outputs, feed):
        return [self.tables[name][int(feed["i"])] for name in outputs]


def feeds(count):
    return [{"i": np.array(i)} for i in range(count)]


def compared(reference, quantized, labels=None, count=None):
    """Compare tables of outputs by name, one entry for each feed."""
    count = len(next(iter(reference.values()))) if count is None else count
    return compare(Canned(reference), Canned(quantized), feeds(count), labels=labels)


def one(reference, quantized, **options):
    return compared({"y": reference}, {"y": quantized}, **options)


@given(
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    seed=st.integers(0, 999),
    noise=st.floats(1e-4, 10),
)
def test_feed_by_feed_gives_what_all_at_once_gives(cuts, seed, noise):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((sum(cuts), 5)).astype(np.float32)
    b = (a + noise * rng.standard_normal(a.shape)).astype(np.float32)
    labels = rng.integers(0, 5, len(a))
    ends = np.cumsum(cuts)[:-1]
    found = one(np.split(a, ends), np.split(b, ends), labels=labels)
    x, y = a.astype(np.float64), b.astype(np.float64)
    # sums of some twenty float64
    close = {"rel": 1e-12}
    assert found.sqnr_db == pytest.approx(
        10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()), **close
    )
    [output] = found.outputs
    assert output.sqnr_db == found.sqnr_db
    cosine = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
    assert output.cosine == pytest.approx(cosine, **close)
    assert output.max_abs == np.abs(x - y).max()
    assert found.agreement == np.mean(a.argmax(1) == b.argmax(1))
    assert found.float_top1 == np.mean(a.argmax(1) == labels)
    assert found.quantized_top1 == np.mean(b.argmax(1) == labels)
    assert found.samples == len(cuts)


def test_several_outputs_count_together_and_apart():
    a, b = np.full((2, 3), 1, np.float32), np.full((2, 1, 1), 10, np.float32)
    found = compared({"a": [a], "b": [b]}, {"a": [a + 0.1], "b": [b]})
    assert [o.name for o in found.outputs] == ["a", "b"]
    assert found.outputs[0].sqnr_db == pytest.approx(20, abs=1e-4)
    assert found.outputs[1].sqnr_db is None
    # the noise of one, the signal of both: 6 * 0.01 and 6 + 200
    assert found.sqnr_db == pytest.approx(10 * np.log10(206 / 0.06), abs=1e-4)


def test_equal_outputs_have_no_ratio():
    a = np.ones((2, 3), np.float32)
    found = one([a], [a])
    assert found.sqnr_db is None
    assert found.outputs[0].cosine == 1
    assert found.outputs[0].max_abs == 0
    assert found.agreement == 1


def test_outputs_of_other_types_do_not_count():
    a, i = np.ones((2, 3), np.float32), np.arange(4)
    found = compared({"i": [i], "a": [a]}, {"i": [i + 1], "a": [a]})
    assert [o.name for o in found.outputs] == ["a"]
    with pytest.raises(VerificationError, match="no floating-point output"):
        compared({"i": [i]}, {"i": [i]})


# -- what looks like class scores ----------------------------------------------------------------

LOGITS = np.array([[3, 1, -2], [0, 5, 1]], np.float32)
PROBABILITIES = np.full((2, 4, 5), 0.2, np.float32)


@pytest.mark.parametrize(
    ("output", "is_scores"),
    [
        (LOGITS, True),
        (PROBABILITIES, True),
        (PROBABILITIES * 2, False),
        (np.ones((2, 1), np.float32), False),
        (np.ones(3, np.float32), False),
        (np.ones((1, 3, 4, 4), np.float32), False),
        (np.array([[[-0.5, 1.5]]], np.float32), False),
    ],
)
def test_agreement_is_for_class_scores(output, is_scores):
    found = one([output], [output])
    assert found.agreement == (1.0 if is_scores else None)


def test_agreement_needs_every_sample_to_look_like_scores():
    odd = np.full((1, 2, 3), 7, np.float32)
    assert one([PROBABILITIES, odd], [PROBABILITIES, odd]).agreement is None


def test_of_several_outputs_only_labels_tell_that_one_is_class_scores():
    image = np.ones((2, 3, 4, 4), np.float32)
    tables = {"a": [LOGITS], "image": [image]}
    assert compared(tables, tables).agreement is None
    found = compared(tables, tables, labels=np.array([0, 0]))
    assert (found.agreement, found.float_top1, found.quantized_top1) == (1, 0.5, 0.5)


def test_rows_of_sequences_count_each():
    a = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]].reshape(2, 2, 3)
    b = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]].reshape(2, 2, 3)
    found = one([a], [b], labels=np.array([0, 1, 0, 1]))
    assert (found.agreement, found.float_top1, found.quantized_top1) == (0.75, 0.5, 0.75)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_number_of_labels_than_rows_is_an_error(count):
    with pytest.raises(DataError, match=f"there are {count} labels"):
        one([LOGITS, LOGITS], [LOGITS, LOGITS], labels=np.zeros(count, np.int64))


def test_labels_without_class_scores_are_an_error():
    image = np.ones((2, 3, 4, 4), np.float32)
    with pytest.raises(DataError, match="no output looks like class scores"):
        one([image], [image], labels=np.zeros(2, np.int64))


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_label_that_is_no_class_is_an_error(label):
    with pytest.raises(DataError, match=f"label {label} is none of the model's 3 classes"):
        one([LOGITS], [LOGITS], labels=np.array([0, label]))


def test_a_feed_without_rows_has_no_labels():
    empty = np.zeros((0, 3), np.float32)
    found = one([LOGITS, empty], [LOGITS, empty], labels=np.array([0, 1]))
    assert (found.float_top1, found.agreement) == (1, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_only_the_quantized_model_makes_infinite_is_an_error(bad):
    broken = LOGITS.copy()
    broken[1, 2] = bad
    with pytest.raises(VerificationError, match=r"'y' of the quantized model is NaN or.* sample 1"):
        one([LOGITS, LOGITS], [LOGITS, broken])


def test_an_infinity_of_both_models_does_not_count():
    a = np.array([[1, -np.inf, 2]], np.float32)
    b = np.array([[1.5, -np.inf, 2]], np.float32)
    found = one([a], [b])
    assert found.outputs[0].max_abs == 0.5
    assert found.sqnr_db == pytest.approx(10 * np.log10(5 / 0.25))


def test_nan_of_the_float_model_is_an_error_of_the_data():
    with pytest.raises(DataError, match="'y' of the float model is NaN in evaluation sample 0"):
        one([LOGITS * np.nan], [LOGITS])


def test_another_shape_is_an_error():
    with pytest.raises(VerificationError, match=r"shape \(1, 3\), the float model gives \(2, 3\)"):
        one([LOGITS], [LOGITS[:1]])


def test_no_sample_is_an_error():
    with pytest.raises(DataError, match="there is no evaluation sample"):
        one([], [], count=0)


def test_progress_is_told_of_every_feed():
    told = []
    tables = Canned({"y": [LOGITS] * 4})
    compare(tables, tables, feeds(4), on_feed=lambda: told.append(1))
    assert len(told) == 4
