"""The baseline: what it holds, what it tolerates, and several processes that write it."""

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cli import environment

from ptq.baseline import (
    TOLERANCES,
    Baseline,
    Entry,
    figures_of,
    regressions,
    require_same_data,
    rounded,
    rounded_layers,
    update,
)
from ptq.errors import ConfigError
from ptq.report.check import Figure


def figure(name="sqnr", unit="dB", value=30.0, **fields) -> Figure:
    fields = {"higher_is_better": True, **fields}
    return Figure(name=name, title=name, unit=unit, value=value, **fields)


def entry(**figures) -> Entry:
    return Entry(samples=8, data_sha256="ab", figures=figures)


def against(was, now, tolerances=None):
    baseline = Baseline(models={"m": was}, tolerances=tolerances or {})
    return regressions(baseline, was, now)


# -- the file ---------------------------------------------------------------------------------


def test_a_file_that_is_read_and_written_is_the_same(tmp_path):
    path = tmp_path / "b.json"
    update(path, "b", entry(sqnr=31.25, topk=0.98))
    update(path, "a", entry(sqnr=None))
    content = path.read_bytes()
    assert Baseline.load(path).to_json() == content
    assert msgspec.json.decode(content, type=Baseline) == Baseline.load(path)


def test_keys_are_sorted_and_a_figure_has_a_line(tmp_path):
    path = tmp_path / "b.json"
    update(path, "z", entry(topk=0.5, agreement=0.75))
    update(path, "a", entry(sqnr=1.0))
    lines = [line.strip() for line in path.read_text().splitlines()]
    assert lines.index('"a": {') < lines.index('"z": {')
    assert lines.index('"agreement": 0.75,') < lines.index('"topk": 0.5')


def test_an_update_keeps_other_models_and_what_the_user_tolerates(tmp_path):
    path = tmp_path / "b.json"
    update(path, "a", entry(sqnr=1.0))
    written = json.loads(path.read_text())
    assert written["tolerances"] == dict(TOLERANCES)
    written["tolerances"] = {"sqnr": 3}
    path.write_text(json.dumps(written))
    update(path, "b", entry(sqnr=2.0))
    found = Baseline.load(path)
    assert found.tolerances == {"sqnr": 3}
    assert {n: e.figures["sqnr"] for n, e in found.models.items()} == {"a": 1.0, "b": 2.0}


def test_an_update_that_changes_nothing_does_not_touch_the_file(tmp_path):
    path = tmp_path / "b.json"
    update(path, "a", entry(sqnr=1.0))
    before = path.stat()
    update(path, "a", entry(sqnr=1.0))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_processes_that_write_at_once_lose_nothing_and_leave_no_lock(tmp_path):
    script = (
        "import sys; from pathlib import Path; from ptq.baseline import Entry, update\n"
        "for i in range(10):\n"
        "    e = Entry(samples=1, data_sha256='x', figures={'sqnr': float(i)})\n"
        "    update(Path('b.json'), f'{sys.argv[1]}-{i}', e)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(n)], cwd=tmp_path, env=environment())
        for n in range(4)
    ]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    found = Baseline.load(tmp_path / "b.json")
    assert set(found.models) == {f"{n}-{i}" for n in range(4) for i in range(10)}
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no baseline"),
        (b"[]", "is no baseline"),
        (b"\xff\xfe", "is no baseline"),
        (b'{"schema": 2}', "has schema 2"),
        (b'{"schema": 1, "model": {}}', "is no baseline"),
        (b'{"schema": 1, "tolerances": {"shares": 1}}', "did you mean 'share'"),
        (b'{"schema": 1, "tolerances": {"dB": -1}}', "give 0 or more"),
    ],
)
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path, content, message):
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Baseline.load(tmp_path / "b.json")
    with pytest.raises(ConfigError, match=message):
        update(tmp_path / "b.json", "a", entry())
    assert (tmp_path / "b.json").read_bytes() == content


def test_a_missing_file_and_a_missing_model_name_the_option_that_adds_them(tmp_path):
    with pytest.raises(ConfigError, match="--update-baseline writes one"):
        Baseline.load(tmp_path / "b.json")
    found = Baseline(models={"digits.onnx": entry()})
    with pytest.raises(ConfigError, match=r"did you mean --name 'digits.onnx'\? --update-base"):
        found.entry("digit.onnx", tmp_path / "b.json")


def test_other_data_is_refused(tmp_path):
    was, path = entry(), tmp_path / "b.json"
    require_same_data(was, 8, "ab", "m", path)
    with pytest.raises(ConfigError, match="8 samples, these are 9"):
        require_same_data(was, 9, "cd", "m", path)
    with pytest.raises(ConfigError, match="other data or labels"):
        require_same_data(was, 8, "cd", "m", path)


# -- figures ----------------------------------------------------------------------------------

UNITS = st.sampled_from(["share", "dB", "number", "bytes", "factor"])


@given(UNITS, st.floats(-1e9, 1e9))
def test_a_rounded_figure_stays_as_it_is(unit, value):
    assert rounded(rounded(value, unit), unit) == rounded(value, unit)


def test_figures_are_rounded_so_that_commits_are_small():
    figures = [
        figure("sqnr", "dB", 31.23456),
        figure("cosine", "number", 0.99123456),
        figure("topk", "share", 0.987654),
        figure("size_bytes", "bytes", 66185.0),
        figure("mse", "number", -0.0),
        figure("exact", "dB", None),
    ]
    text = json.dumps(figures_of(figures))
    assert text == (
        '{"sqnr": 31.23, "cosine": 0.99123, "topk": 0.9877, "size_bytes": 66185, "mse": 0.0, '
        '"exact": null}'
    )
    assert rounded_layers({"a": 30.126, "b": None}) == {"a": 30.13, "b": None}


@given(UNITS, st.floats(0.001, 1e6), st.booleans())
def test_the_figure_itself_is_no_regression_whatever_its_unit(unit, value, higher):
    name = {"bytes": "size_bytes", "factor": "speedup"}.get(unit, "x")
    now = figure(name, unit, value, higher_is_better=higher)
    for tolerances in ({}, {name: 0.0}):
        [held], improved = against(Entry(**_was(now)), [now], tolerances)
        assert (held.verdict, improved) == ("holds", ())


def _was(now):
    return {"samples": 1, "data_sha256": "", "figures": figures_of([now])}


@given(
    was=st.floats(1, 60),
    change=st.floats(-10, 10),
    tolerance=st.floats(0, 5),
    higher=st.booleans(),
)
def test_a_regression_is_worse_by_more_than_the_tolerance(was, change, tolerance, higher):
    was, now = round(was, 2), round(was + change, 2)
    one = figure("x", "dB", now, higher_is_better=higher)
    [held], improved = against(entry(x=was), [one], {"x": tolerance})
    worse = was - now if higher else now - was
    if abs(abs(worse) - tolerance) > 1e-6:  # at the limit itself, rounding decides
        assert held.verdict == ("missed" if worse > tolerance else "holds")
        assert bool(improved) == (-worse > tolerance)
    assert (held.was, held.measured, held.tolerance) == (was, now, tolerance)


def test_tolerances_of_plain_numbers_are_parts_of_the_baseline():
    was = entry(size_bytes=1000, mse=2.0, cosine=0.99)
    now = [
        figure("size_bytes", "bytes", 1011, higher_is_better=False),
        figure("mse", "number", 2.19, higher_is_better=False),
        figure("cosine", "number", 0.9885),
    ]
    held, _ = against(was, now)
    assert [h.verdict for h in held] == ["missed", "holds", "missed"]
    assert [h.tolerance for h in held] == pytest.approx([10, 0.2, 0.00099])


def test_the_options_of_a_metric_do_not_change_its_tolerance():
    [held], _ = against(
        entry(**{"cosine:output=y": 0.99}), [figure("cosine:output=y", "number", 0.9885)]
    )
    assert held.verdict == "missed"


@pytest.mark.parametrize(("tolerance", "verdict"), [(0.005, "holds"), (0.0, "missed")])
def test_one_sample_of_few_is_tolerated_unless_nothing_is(tolerance, verdict):
    now = figure("topk", "share", 38 / 40, units=40, step=1 / 40)
    [held], _ = against(entry(topk=39 / 40), [now], {"topk": tolerance})
    assert held.verdict == verdict
    worse = figure("topk", "share", 37 / 40, units=40, step=1 / 40)
    assert against(entry(topk=39 / 40), [worse], {"topk": tolerance})[0][0].verdict == "missed"


def test_a_single_layer_that_falls_back_to_float_is_a_regression():
    [held], _ = against(entry(integer_kernels=1.0), [figure("integer_kernels", "share", 99 / 100)])
    assert held.verdict == "missed"


def test_a_speed_up_is_worse_only_beyond_its_spread():
    was = entry(speedup=2.0)
    for lo, hi, verdict in ((1.4, 1.6, "missed"), (1.2, 1.8, "holds")):
        [held], _ = against(was, [figure("speedup", "factor", 1.5, lo=lo, hi=hi)])
        assert held.verdict == verdict
        assert held.certain == (verdict == "missed")
    assert "within the spread" in held.remark


def test_equal_outputs_are_better_than_any_decibels():
    [held], improved = against(entry(sqnr=None), [figure(value=200.0)])
    assert held.verdict == "missed"
    [held], improved = against(entry(sqnr=200.0), [figure(value=None)])
    assert (held.verdict, improved) == ("holds", ("sqnr",))
    [held], improved = against(entry(sqnr=None), [figure(value=None)])
    assert (held.verdict, improved) == ("holds", ())


def test_figures_that_the_baseline_does_not_have_are_not_held():
    assert against(entry(), [figure()]) == ((), ())
