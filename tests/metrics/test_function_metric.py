"""A user's own metric."""

import sys
import textwrap

import numpy as np
import pytest

from ptq.errors import ConfigError, DataError
from ptq.metrics import parse_metric

MODULE = """
    import numpy as np

    def distance(outputs, target):
        return -float(np.abs(outputs["y"] - target["y"]).mean())

    def right(outputs, target):
        return outputs["y"].argmax(1) == target

    def kinds(outputs, target):
        return len(target) if isinstance(target, np.ndarray) and target.dtype.kind == "U" else 0

    def nan(outputs, target): return float("nan")
    def text(outputs, target): return "good"
    def nothing(outputs, target): pass
    def ragged(outputs, target): return [[1], [1, 2]]
    def short(outputs, target): return np.ones(2)
    def fails(outputs, target): raise KeyError("scores")
    def takes_one(outputs): return 1
    number = 3
"""

Y = np.eye(3, dtype=np.float32)


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "metric_for_test.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "metric_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in [name for name in sys.modules if name.startswith("metric_")]:
        del sys.modules[name]


def measured(name, got, reference, labels=None):
    metric = parse_metric(f"metric_for_test:{name}")
    return metric.measure({"y": got}, {"y": reference}, labels)


def test_without_labels_the_target_is_what_the_float_model_gives():
    assert measured("distance", Y + 1, Y).tolist() == [[-1, 1]]


def test_with_labels_they_are_the_target_and_each_row_is_a_unit():
    sums = measured("right", Y, Y, np.array([0, 2, 2]))
    assert sums.tolist() == [[1, 1], [0, 1], [1, 1]]
    metric = parse_metric("metric_for_test:right")
    assert metric.figure(sums.sum(axis=0)) == pytest.approx(2 / 3)
    assert metric.answers({"y": Y}) == 3
    assert (metric.title, metric.text) == ("right", "metric_for_test:right")


def test_texts_come_as_an_array_too():
    assert measured("kinds", Y, Y, ("a", "b", "c")).tolist() == [[3, 1]]


def test_rows_are_the_axis_that_all_outputs_share():
    metric = parse_metric("metric_for_test:right")
    assert metric.answers({"a": np.ones((3, 2)), "b": np.ones((3, 1))}) == 3
    assert metric.answers({"a": np.ones((3, 2)), "b": np.ones((2, 1))}) == 1
    assert metric.answers({"a": np.ones(())}) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "'metric_for_test:nan' returned NaN or infinity; return finite numbers"),
        ("text", "returned a str; return a number, or an array of one for each row"),
        ("nothing", "returned a NoneType; return a number"),
        ("ragged", "returned a list; return a number"),
        ("short", r"returned an array of shape \(2,\); .* one for each of the 3 rows"),
        ("fails", "'metric_for_test:fails' raised KeyError: 'scores'"),
        ("takes_one", "raised TypeError: takes_one"),
    ],
)
def test_a_wrong_result_is_an_error_that_names_the_function(name, message):
    with pytest.raises(DataError, match=message):
        measured(name, Y, Y)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("metric_for_test:dist", "has no 'dist'; did you mean 'distance'"),
        ("metric_for_test:number", "is a int; name a function of outputs and target"),
        ("metric_broken:f", "importing it raised ZeroDivisionError"),
        ("metric_missing:f", "there is no module 'metric_missing'"),
    ],
)
def test_what_is_no_function_is_an_error_before_anything_runs(source, message):
    with pytest.raises(ConfigError, match=message):
        parse_metric(source)
