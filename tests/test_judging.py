"""What a trial is worth: by which figure, and which limits it misses."""

import msgspec
import pytest

from ptq.evaluate.figures import Metrics
from ptq.evaluate.latency import Latency, Timing
from ptq.evaluate.thresholds import Drop, Thresholds
from ptq.judging import Judge, Trial
from ptq.metrics import parse_metric
from ptq.report.check import Figure

FLOAT_BYTES = 1000


def judge(task="mse", **limits):
    return Judge(
        metrics=Metrics((parse_metric(task),), (parse_metric("sqnr"),)),
        thresholds=Thresholds(**{"max_drop": Drop(0.02), **limits}),
        confidence=0.95,
        float_bytes=FLOAT_BYTES,
    )


def figure(name, drop, unit="number", step=0.0, reach=0.0):
    return Figure(
        name=name, title=name, unit=unit, higher_is_better=True, value=1 - drop, reference=1.0,
        drop=drop, drop_lo=drop - reach, drop_hi=drop + reach, units=100, step=step,
    )  # fmt: skip


def sqnr(decibels):
    return Figure(name="sqnr", title="SQNR", unit="dB", higher_is_better=True, value=decibels)


def trial(*choosing, reporting=(), speedup=1.5, spread=1.1, size=300):
    timing = Timing(1.0, 1.0, 1.0)
    latency = Latency(timing, timing, speedup, 1.0, spread, 100, 1)
    return Trial(seconds=2.0, choosing=choosing, reporting=reporting or choosing,
                 size_bytes=size, latency=latency)  # fmt: skip


def test_a_share_of_answers_is_ordered_by_the_noise_of_the_outputs():
    counted = figure("agreement", 0.01, "share", step=0.01)
    assert judge("agreement").merit(trial(counted, sqnr(20.0))) == pytest.approx(0.01)
    assert judge("agreement").merit(trial(counted, sqnr(None))) == 0.0


def test_other_figures_are_ordered_by_their_drop_in_parts_of_the_limit():
    assert judge().merit(trial(figure("mse", 0.03), sqnr(20.0))) == pytest.approx(1.5)
    assert judge(max_drop=Drop(0.0)).merit(trial(figure("mse", 0.03))) == pytest.approx(0.03)


def test_the_outcome_counts_the_limits_that_are_missed():
    found = judge(min_speedup=2.0, max_size_ratio=0.2).outcome(trial(figure("mse", 0.03)))
    assert (found.missed, found.satisfies, found.seconds) == (3, False, 2.0)
    assert judge(min_speedup=1.2, max_size_ratio=0.3).outcome(trial(figure("mse", 0.02))).satisfies


@pytest.mark.parametrize(
    ("limits", "beyond"),
    [
        ({}, False),  # the drop can be mended
        ({"max_size_ratio": 0.2}, True),
        ({"min_speedup": 2.0}, True),
        ({"min_speedup": 1.6}, False),  # 1.5 is not certainly less, with a spread of 1.1
    ],
)
def test_only_a_size_or_a_speed_that_is_missed_for_certain_is_beyond_repair(limits, beyond):
    assert judge(**limits).outcome(trial(figure("mse", 0.03))).beyond_repair == beyond


def test_the_outcome_knows_nothing_of_the_samples_to_report_on():
    near, far = figure("mse", 0.0), figure("mse", 0.5)
    assert judge().outcome(trial(near, reporting=(far,))) == judge().outcome(trial(near))


@pytest.mark.parametrize(("reach", "verdict"), [(0.02, "holds"), (0.005, "missed")])
def test_on_the_others_only_what_is_certain_is_missed(reach, verdict):
    [held] = judge(max_size_ratio=0.2).reported(trial(figure("mse", 0.03, reach=reach)))
    assert (held.option, held.verdict) == ("--max-drop", verdict)


def test_where_there_is_no_model_that_is_the_outcome():
    failed = Trial(seconds=1.0, failed="why")
    assert judge().outcome(failed).failed == "why"
    assert msgspec.json.decode(msgspec.json.encode(failed), type=Trial) == failed
