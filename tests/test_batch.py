"""`ptq.batch`: several models, one after the other, whatever comes of each."""

import dataclasses
from pathlib import Path

import msgspec
import onnx
import pytest

import ptq
from ptq.batching import BatchProgress
from ptq.errors import ConfigError
from ptq.freshness import is_current, is_ours
from ptq.progress import Progress
from ptq.report.batch import Batch, BatchRow, batch_markdown, batch_text, duration


@pytest.fixture
def models(tmp_path, digits, monkeypatch):
    """Two models that differ, and their data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        model = onnx.load(digits.model)
        model.doc_string = name
        onnx.save_model(model, tmp_path / f"{name}.onnx")
    for path in (digits.calibration, digits.evaluation):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def task(name, *, samples=4, seconds=0.02, checks=None, config=None, **options):
    return ptq.Task(
        model=f"{name}.onnx",
        calibration="digits_calib.npz",
        config=config or ptq.QuantizeConfig(place=("all",)),
        options=ptq.RunOptions(samples=samples, seconds=seconds, **options),
        checks=checks,
    )


def checks(**thresholds):
    return ptq.Checks(
        data="digits_eval.npz", options=ptq.CheckOptions(samples=32, threads=1, **thresholds)
    )


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A quantized model, and the task that made it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "m.onnx").write_bytes(digits.model.read_bytes())
    one = ptq.Task(
        model=folder / "m.onnx",
        calibration=str(digits.calibration),
        config=ptq.QuantizeConfig(place=("all",)),
        options=ptq.RunOptions(samples=4, seconds=0.02),
    )
    [row] = ptq.batch([one]).rows
    assert row.status == "done", row.message
    return one


def current(one, **changes):
    """Say whether the output is up to date for a task with other options or settings."""
    given = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)} | changes
    return is_current(
        given["model"], one.output, given["calibration"], given["config"], given["options"]
    )


# -- what comes of models ------------------------------------------------------------------------


def test_every_model_is_quantized_and_its_figures_are_those_of_a_run_alone(models):
    found = ptq.batch([task("one"), task("two", output=Path("alone.onnx"))])
    assert [row.status for row in found.rows] == ["done", "done"]
    assert found.exit_code == 0
    alone = ptq.quantize(
        "two.onnx",
        "digits_calib.npz",
        ptq.QuantizeConfig(place=("all",)),
        options=ptq.RunOptions(output="again.onnx", samples=4, seconds=0.02),
    )
    assert Path("alone.onnx").read_bytes() == Path("again.onnx").read_bytes()
    row = found.rows[1]
    assert row.sqnr_db == alone.report.accuracy.sqnr_db
    assert row.output_bytes == Path("alone.onnx").stat().st_size
    assert row.input_bytes == Path("two.onnx").stat().st_size
    assert row.task.value == alone.report.accuracy.agreement


def test_a_failure_is_kept_in_its_row_and_the_next_model_goes_on(models):
    Path("one.onnx").write_bytes(b"no model")
    found = ptq.batch([task("one"), task("two")])
    assert [row.status for row in found.rows] == ["failed", "done"]
    assert "'one.onnx' is not an ONNX model" in found.rows[0].message
    assert found.rows[0].output_bytes is None
    assert not Path("one.int8.onnx").exists()
    assert Path("two.int8.onnx").exists()
    assert found.exit_code == 1


def test_fail_fast_does_not_begin_the_next_model(models):
    found = ptq.batch([task("missing"), task("two")], ptq.BatchOptions(fail_fast=True))
    assert [row.status for row in found.rows] == ["failed", "not run"]
    assert not Path("two.int8.onnx").exists()
    assert found.exit_code == 1


def test_a_missed_threshold_is_3_and_a_failure_outweighs_it(models):
    missing = task("one", checks=checks(min_sqnr=200.0))
    found = ptq.batch([missing, task("two", checks=checks(min_sqnr=1.0))])
    assert [row.status for row in found.rows] == ["missed", "done"]
    assert "--min-sqnr" in found.rows[0].message
    assert Path("one.int8.onnx").exists(), "what misses a threshold is sound"
    assert found.exit_code == 3
    assert not found.rows[0].check.passed
    assert found.rows[1].check.passed
    assert found.rows[1].verdict == "holds"
    assert ptq.batch([missing, task("missing")]).exit_code == 1


def test_a_check_that_cannot_be_run_is_a_failure(models):
    found = ptq.batch([task("one", checks=checks(min_sqnr=1.0, labels="nowhere.npy"))])
    assert found.rows[0].status == "failed"
    assert "nowhere.npy" in found.rows[0].message
    assert found.rows[0].output_bytes is not None, "the quantization's figures stay"


def test_ctrl_c_ends_the_batch_and_what_is_done_stays(models, monkeypatch):
    from ptq import batching

    quantize = batching.quantize

    def interrupted(model, *rest, **named):
        if model.name == "two.onnx":
            raise KeyboardInterrupt
        return quantize(model, *rest, **named)

    monkeypatch.setattr(batching, "quantize", interrupted)
    found = ptq.batch([task("one"), task("two"), task("three")])
    assert [row.status for row in found.rows] == ["done", "interrupted", "not run"]
    assert found.exit_code == 130
    assert Path("one.int8.onnx").exists()


def test_folders_of_outputs_are_made(models):
    one = task("one", output=Path("a/b/one.onnx"), report=Path("c/one.json"))
    assert ptq.batch([one]).exit_code == 0
    assert Path("a/b/one.onnx").is_file()
    assert Path("c/one.json").is_file()


# -- what is refused before any work -------------------------------------------------------------


def test_nothing_to_do_is_an_error():
    with pytest.raises(ConfigError, match="there is no model to quantize"):
        ptq.batch([])


def test_two_models_with_one_output_are_refused_before_any_work(models):
    tasks = [task("one", output=Path("out.onnx")), task("two", output=Path("out.onnx"))]
    with pytest.raises(ConfigError, match=r"'one.onnx' and 'two.onnx' are both .* {name}"):
        ptq.batch(tasks)
    assert not Path("out.onnx").exists()


def test_a_method_that_is_none_is_refused_before_any_work(models):
    wrong = task("two", config=ptq.QuantizeConfig(calib="median"))
    with pytest.raises(ConfigError, match=r"two.onnx: .*median"):
        ptq.batch([task("one"), wrong])
    assert not Path("one.int8.onnx").exists()


# -- what is up to date --------------------------------------------------------------------------


def test_what_is_up_to_date_is_checked_but_not_quantized_again(models, monkeypatch):
    one = task("one", checks=checks(min_sqnr=1.0))
    assert ptq.batch([one]).rows[0].up_to_date is False
    before = Path("one.int8.onnx").stat().st_mtime_ns

    def never(*_, **__):
        raise AssertionError("it was up to date")

    monkeypatch.setattr("ptq.batching.quantize", never)
    [row] = ptq.batch([one]).rows
    assert (row.status, row.up_to_date) == ("done", True)
    assert row.verdict == "up to date, holds"
    assert row.sqnr_db == row.check.figure("sqnr").value
    assert row.output_bytes == Path("one.int8.onnx").stat().st_size
    assert Path("one.int8.onnx").stat().st_mtime_ns == before
    strict = dataclasses.replace(one, checks=checks(min_sqnr=200.0))
    assert ptq.batch([strict]).exit_code == 3


def test_force_does_what_is_up_to_date_again(models):
    ptq.batch([task("one")])
    before = Path("one.int8.onnx").stat().st_ino
    [row] = ptq.batch([task("one")], ptq.BatchOptions(force=True)).rows
    assert (row.status, row.up_to_date) == ("done", False)
    assert Path("one.int8.onnx").stat().st_ino != before


def test_the_same_again_is_up_to_date(made):
    assert current(made)


@pytest.mark.parametrize(
    "settings",
    [{"calib": "minmax"}, {"place": ("auto",)}, {"weights": "per-tensor"}, {"format": "integer"}],
    ids=str,
)
def test_other_settings_are_not_up_to_date(made, settings):
    assert not current(made, config=msgspec.structs.replace(made.config, **settings))


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 5},
        {"samples": None},
        {"report": Path("not-there.json")},
        {"min_speedup": 0.1},
        {"on_slower": "fail"},
        {"placement": ptq.PinnedPlacement(keep_float=("a",))},
    ],
    ids=str,
)
def test_other_samples_reports_and_thresholds_are_not_up_to_date(made, options):
    assert not current(made, options=dataclasses.replace(made.options, **options))


def test_options_that_change_no_bytes_leave_it_up_to_date(made):
    options = dataclasses.replace(made.options, threads=3, seconds=9.0)
    assert current(made, options=options)


def test_the_data_is_compared_by_content(made, digits, tmp_path):
    copy = tmp_path / "copy.npz"
    copy.write_bytes(digits.calibration.read_bytes())
    assert current(made, calibration=str(copy))
    assert not current(made, calibration=str(digits.evaluation))
    assert not current(made, calibration=str(tmp_path / "nowhere.npz"))


def test_another_float_model_is_not_up_to_date(made, tmp_path):
    other = onnx.load(made.model)
    other.doc_string = "other"
    onnx.save_model(other, tmp_path / "m.onnx")
    assert not current(made, model=tmp_path / "m.onnx")


def test_another_version_is_not_up_to_date(made, monkeypatch):
    monkeypatch.setattr("ptq.freshness.__version__", "999")
    assert not current(made)


def test_both_formats_are_up_to_date_only_if_both_files_are_there(models):
    both = task("one", config=ptq.QuantizeConfig(place=("all",), format="both"))
    assert ptq.batch([both]).exit_code == 0
    assert ptq.batch([both]).rows[0].up_to_date
    Path("one.int8.integer.onnx").unlink()
    assert not ptq.batch([both]).rows[0].up_to_date
    assert Path("one.int8.integer.onnx").is_file()


@pytest.mark.parametrize("scheme", ["dynamic", "auto"])
def test_other_schemes_are_up_to_date_too(models, scheme):
    config = ptq.QuantizeConfig(scheme=scheme, place=("all",), allow_larger=True)
    one = task("one", config=config)
    first = ptq.batch([one])
    assert first.exit_code == 0, first.rows[0].message
    assert ptq.batch([one]).rows[0].up_to_date


# -- what may be replaced ------------------------------------------------------------------------


def test_what_ptq_made_is_replaced_and_anything_else_only_by_force(models):
    ptq.batch([task("one")])
    other = task("one", config=ptq.QuantizeConfig(place=("all",), calib="minmax"))
    assert ptq.batch([other]).rows[0].verdict == "done"
    Path("one.int8.onnx").write_bytes(b"mine")
    [row] = ptq.batch([other]).rows
    assert row.status == "failed"
    assert "exists; give --force" in row.message
    assert Path("one.int8.onnx").read_bytes() == b"mine"
    assert ptq.batch([other], ptq.BatchOptions(force=True)).exit_code == 0


def test_a_float_model_that_was_kept_is_ours_as_it_was_and_as_it_was_prepared(digits, tmp_path):
    from ptq.graph.save import save_model
    from ptq.source import open_source

    copy, prepared, other = (tmp_path / f"{n}.onnx" for n in ("copy", "prepared", "other"))
    copy.write_bytes(digits.model.read_bytes())
    save_model(open_source(digits.model).model, prepared)
    assert prepared.read_bytes() != copy.read_bytes()
    onnx.save_model(onnx.ModelProto(doc_string="other"), other)
    assert is_ours(copy, digits.model)
    assert is_ours(prepared, digits.model)
    assert not is_ours(other, digits.model)
    assert not is_ours(tmp_path / "missing.onnx", digits.model)


# -- what is told --------------------------------------------------------------------------------


def test_progress_tells_every_model_and_its_stages(models):
    told, rows = [], []
    options = ptq.BatchOptions(on_progress=told.append, on_row=rows.append)
    found = ptq.batch([task("one", checks=checks(min_sqnr=1.0)), task("missing")], options)
    assert tuple(rows) == found.rows
    assert all(isinstance(p, BatchProgress) and p.total == 2 for p in told)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert (told[0].label, told[0].done, told[0].stage) == ("one.onnx", 0, None)
    assert (told[-1].label, told[-1].done) == ("missing.onnx", 2)
    stages = {p.stage.stage for p in told if p.stage is not None}
    assert "observe" in stages
    assert any(isinstance(p.stage, Progress) for p in told)


def test_notices_are_in_the_row_they_are_of(models):
    [row] = ptq.batch([dataclasses.replace(task("one"), calibration="random")]).rows
    assert any("random" in notice for notice in row.notices)


# -- the table -----------------------------------------------------------------------------------


def row(label, status="done", **more):
    return BatchRow(label=label, model=label, output=f"{label}.int8", status=status, **more)


def batch_of(*rows, seconds=75.0):
    return Batch(rows=rows, environment=ptq.report.Environment.here(), seconds=seconds)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["done"], 0),
        (["done", "missed"], 3),
        (["missed", "failed"], 1),
        (["done", "failed"], 1),
        (["missed", "not run"], 1),
        (["failed", "interrupted", "not run"], 130),
    ],
    ids=str,
)
def test_the_exit_code_is_that_of_the_worst(statuses, code):
    assert batch_of(*(row("m", status) for status in statuses)).exit_code == code


def test_the_summary_counts_all_rows():
    found = batch_of(
        row("a"), row("b", up_to_date=True), row("c", "missed"), row("d", "failed"), row("e")
    )
    assert found.summary == "5 models in 1 min 15 s: 2 done, 1 up to date, 1 missed, 1 failed"


def test_the_table_has_a_line_for_each_model_and_says_what_is_wrong():
    found = batch_of(
        row("a.onnx", input_bytes=4_000_000, output_bytes=1_000_000, sqnr_db=38.24),
        row("b.onnx", "failed", message="no sites\nat all"),
        row("c.onnx", "not run"),
    )
    lines = batch_text(found).splitlines()
    assert len(lines) == 1 + 3 + 2
    cells = "a.onnx 4.00 MB 1.00 MB 4.0x smaller - 38.2 dB - done"
    assert " ".join(lines[1].split()) == cells
    assert lines[2].endswith(r"failed: no sites\nat all")
    assert lines[3].endswith("not run")


def test_markdown_of_hostile_names_has_as_many_cells_as_its_head():
    hostile = row("a|b](x)<img>`_*.onnx", "failed", message="pipe | and\nline")
    lines = batch_markdown(batch_of(hostile)).splitlines()
    cells = [line.replace("\\|", "").count("|") for line in lines[:3]]
    assert len(set(cells)) == 1
    assert "\\<img\\>" in lines[2]


def test_json_decodes_into_its_type():
    found = batch_of(row("a"), row("b", "failed", message="x"))
    assert msgspec.json.decode(found.to_json(), type=Batch) == found
    assert msgspec.json.decode(found.to_json())["exit_code"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s")]
)
def test_times_are_for_people(seconds, text):
    assert duration(seconds) == text
