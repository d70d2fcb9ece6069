"""Scores of canned outputs: figures, intervals, labels, errors."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import ConfigError, DataError, VerificationError
from ptq.evaluate.accuracy import compare
from ptq.evaluate.score import Estimate, Score, score
from ptq.metrics import parse_metric
from ptq.numerics.confidence import newcombe_paired, wilson
from ptq.numerics.metrics import ErrorSums


@dataclass
class Canned:
    """A session that gives prepared outputs: the feed ``i`` names the row of each table."""

    tables: dict
    runs: ClassVar[list] = []

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self.tables]

    def run(self, outputs, feed):
        self.runs.append(int(feed["i"]))
        return [self.tables[name][int(feed["i"])] for name in outputs]


def scored(reference, quantized, *texts, labels=None, **options):
    """Score tables of outputs, one entry for each feed; of one output they may be lists."""
    reference, quantized = (
        tables if isinstance(tables, dict) else {"y": tables} for tables in (reference, quantized)
    )
    count = len(next(iter(reference.values())))
    feeds = [{"i": np.array(i)} for i in range(count)]
    metrics = [parse_metric(text) for text in texts]
    models = Canned(reference), Canned(quantized)
    return score(*models, feeds, metrics, labels=labels, resamples=200, **options)


def one(*arguments, **options):
    [found] = scored(*arguments, **options)
    return found


def logits(seed, rows=40):
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def ends(estimate):
    return estimate.lo, estimate.hi


# -- figures -------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(0, 39), max_size=4))
def test_figures_are_those_of_the_accuracy_that_quantize_reports(seed, cuts):
    a = logits(seed)
    b = a + logits(seed + 1)
    labels = np.random.default_rng(seed).integers(0, 4, len(a))
    a, b = (np.split(x, sorted({0, *cuts})[1:]) for x in (a, b))
    top1, agreement, sqnr, cosine = scored(
        a, b, "topk", "agreement", "sqnr", "cosine", labels=labels
    )
    feeds = [{"i": np.array(i)} for i in range(len(a))]
    known = compare(Canned({"y": a}), Canned({"y": b}), feeds, labels=labels)
    assert top1.reference.value == known.float_top1
    assert top1.quantized.value == known.quantized_top1
    assert agreement.quantized.value == known.agreement
    # the same sums, in another order
    assert sqnr.quantized.value == pytest.approx(known.sqnr_db, rel=1e-12)
    assert cosine.quantized.value == pytest.approx(known.outputs[0].cosine, rel=1e-12)


def test_all_metrics_share_one_run_of_each_model():
    Canned.runs.clear()
    told = []
    a = [logits(i, 3) for i in range(4)]
    scored(a, a, "agreement", "sqnr", "mse", on_feed=lambda: told.append(1))
    assert Canned.runs == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(told) == 4


def test_metrics_of_the_same_sums_are_measured_once(monkeypatch):
    of, calls = ErrorSums.of, []
    counted = classmethod(lambda cls, *pair: calls.append(pair) or of(*pair))
    monkeypatch.setattr(ErrorSums, "of", counted)
    a = [logits(i, 3) for i in range(4)]
    b = [x + 0.1 for x in a]
    found = scored(a, b, "sqnr", "mse", "cosine")
    assert len(calls) == 4
    assert [s.metric for s in found] == ["sqnr", "mse", "cosine"]


def test_a_drop_is_positive_where_the_quantized_model_is_worse():
    a = [logits(i, 3) for i in range(4)]
    b = [x + 0.1 for x in a]
    cosine, mse, agreement = scored(a, b, "cosine", "mse", "agreement")
    assert cosine.drop.value == pytest.approx(1 - cosine.quantized.value)
    assert cosine.drop.lo > 0
    assert mse.drop.value == mse.quantized.value == pytest.approx(0.01, rel=1e-5)
    assert ends(mse.drop) == ends(mse.quantized)
    assert agreement.drop.value == 0


def test_a_score_says_what_it_is():
    a = [logits(i, 3) for i in range(4)]
    found = one(a, a, "topk:k=2", labels=np.zeros(12, np.int64), level=0.9)
    assert (found.metric, found.title) == ("topk:k=2", "top-2 accuracy")
    assert (found.unit, found.higher_is_better, found.level) == ("share", True, 0.9)
    assert (found.against, found.units) == ("labels", 12)
    assert one(a, a, "mse").against == "float"


# -- intervals -----------------------------------------------------------------------------------


def test_accuracy_has_closed_forms():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    a, b = (np.eye(4)[np.where(rng.random(50) < p, labels, 0)] for p in (0.9, 0.7))
    found = one([a.astype("f4")], [b.astype("f4")], "topk", labels=labels)
    right_a, right_b = a.argmax(1) == labels, b.argmax(1) == labels
    assert ends(found.reference) == wilson(right_a.sum(), 50)
    assert ends(found.quantized) == wilson(right_b.sum(), 50)
    cells = [right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b]
    assert ends(found.drop) == newcombe_paired(*(int(c.sum()) for c in cells))


def test_the_agreement_of_the_float_model_is_one_by_definition():
    a = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    b = np.concatenate([a[:18], a[:2][:, ::-1]])
    found = one([a], [b], "agreement")
    lo, hi = wilson(18, 20)
    assert found.reference == Estimate(1, 1, 1)
    assert found.quantized == Estimate(0.9, lo, hi)
    assert ends(found.drop) == (1 - hi, 1 - lo)


def test_sequences_are_resampled_whole():
    rows = np.eye(3, dtype=np.float32)[np.random.default_rng(0).integers(0, 3, (30, 5))]
    b = rows.copy()
    b[:3] = b[:3, :, ::-1]  # some sequences are wrong, the others right
    found = one([rows], [b], "agreement:output=y")
    assert found.units == 30
    assert found.quantized.lo < wilson(round(150 * found.quantized.value), 150)[0]


def test_one_unit_has_no_interval():
    a = logits(0, 1)
    labels = np.zeros(1, np.int64)
    for found in scored([a], [a + 0.1], "topk", "agreement", "mse", labels=labels):
        assert found.units == 1
        for estimate in (found.reference, found.quantized, found.drop):
            assert estimate.value is not None
            assert ends(estimate) == (None, None)


def test_intervals_depend_on_the_seed_alone():
    a = [logits(i, 3) for i in range(10)]
    b = [x + logits(i + 50, 3) for i, x in enumerate(a)]
    assert scored(a, b, "sqnr", seed=1) == scored(a, b, "sqnr", seed=1)
    assert scored(a, b, "sqnr", seed=1) != scored(a, b, "sqnr", seed=2)


def test_infinite_figures_become_none_and_the_score_is_json():
    a = [logits(i, 3) for i in range(4)]
    found = one(a, a, "sqnr")
    assert found.quantized == found.reference == found.drop == Estimate(None, None, None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Score) == found


# -- labels --------------------------------------------------------------------------------------


def test_each_metric_takes_labels_in_order():
    a = [logits(i, rows) for i, rows in enumerate((3, 1, 4))]
    labels = np.concatenate([x.argmax(axis=1) for x in a])
    for found in scored(a, a, "topk", "topk:k=2", "agreement", labels=labels):
        assert found.reference.value == 1


@pytest.mark.parametrize("count", [1, 3, 5])
def test_another_number_of_labels_than_rows_is_an_error(count):
    a = [logits(0, 2), logits(1, 2)]
    with pytest.raises(DataError, match=f"there are {count} labels"):
        scored(a, a, "topk", labels=np.zeros(count, np.int64))


def test_labels_of_another_kind_or_none_are_an_error():
    a = [logits(0, 2)]
    with pytest.raises(ConfigError, match="metric 'topk' needs labels; give --labels"):
        scored(a, a, "topk")
    with pytest.raises(ConfigError, match="'topk' takes class numbers as labels, not texts"):
        scored(a, a, "topk", labels=("a", "b"))
    with pytest.raises(ConfigError, match="'cer' takes texts as labels, not class numbers"):
        scored(a, a, "cer", labels=np.zeros(2, np.int64))


def test_texts_are_labels(tmp_path):
    (tmp_path / "chars.txt").write_text("a\nb\nc\n")
    a = [np.eye(4, dtype=np.float32)[[[1, 2, 0, 3]]], np.eye(4, dtype=np.float32)[[[1, 1, 0, 1]]]]
    b = [a[0], a[0]]
    found = one(a, b, f"cer:alphabet={tmp_path / 'chars.txt'}", labels=("abc", "aa"))
    assert found.reference.value == 0
    assert found.quantized.value == found.drop.value == pytest.approx(2 / 5)
    assert not found.higher_is_better


# -- errors --------------------------------------------------------------------------------------


def test_nothing_to_judge_is_an_error_with_a_remedy():
    a = [np.zeros((1, 4), np.float32)] * 3
    with pytest.raises(DataError, match=r"IoU above 0\.5: there is nothing to judge, for no value"):
        scored(a, a, "iou")
    boxes = [np.zeros((5, 6))] * 3
    with pytest.raises(DataError, match=r"finds no box; give a lower score, as in ap:score=0\.1"):
        scored(boxes, boxes, "ap:output=y")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("text", ["agreement", "sqnr", "ap:output=y"])
def test_nan_of_the_quantized_model_is_an_error_whatever_is_measured(bad, text):
    a = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    broken = a.copy()
    broken[1, 2] = bad
    with pytest.raises(VerificationError, match=r"'y' of the quantized model is NaN or.* sample 1"):
        scored([a, a], [a, broken], text)
    with pytest.raises(VerificationError, match=r"'y' of the quantized model is NaN or.* sample 0"):
        scored([a], [broken[:2]], text)
    with pytest.raises(DataError, match="'y' of the float model is NaN in evaluation sample 0"):
        scored([a * np.nan], [a], text)


def test_models_with_other_outputs_cannot_be_compared():
    a = [logits(0)]
    with pytest.raises(VerificationError, match="has no output 'y'; it has: z"):
        scored({"y": a}, {"z": a}, "sqnr")


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_that_is_no_share_is_an_error(level):
    a = [logits(0)]
    with pytest.raises(ConfigError, match=r"give 0\.95"):
        scored(a, a, "sqnr", level=level)


def test_no_sample_is_an_error():
    with pytest.raises(DataError, match="there is no evaluation sample"):
        scored([], [], "sqnr")


def test_a_number_of_classes_that_changes_is_an_error():
    a = [np.ones((1, 3, 2), np.float32), np.ones((1, 4, 2), np.float32)]
    with pytest.raises(DataError, match="mean IoU: the number of classes changes"):
        scored(a, a, "iou:argmax=1")
