"""`ptq report`, and `ptq quantize --report`."""

import json

import pytest
from support.cli import contents, ptq, run
from support.reports import made_report

from ptq.report import Report

MODEL, CALIB, EVAL = "digits_cnn.onnx", "digits_calib.npz", "digits_eval.npz"


def quantize(*more):
    return ptq("quantize", MODEL, "--calib-data", CALIB, "-o", "out.onnx", *more)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A folder where a page, its Markdown and their report were made by one run each."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = ptq(
            "quantize", digits.model, "--calib-data", digits.calibration, "--eval-data",
            digits.evaluation, "--labels", digits.evaluation, "-o", "out.onnx", "--json", "r.json",
            "--report", "page.html",
        )  # fmt: skip
        assert done.code == 0, done.err
    return folder


def test_the_page_can_be_made_again_from_the_json(made, monkeypatch):
    monkeypatch.chdir(made)
    assert ptq("report", "r.json", "-o", "again.html").code == 0
    assert (made / "again.html").read_bytes() == (made / "page.html").read_bytes()


def test_a_page_asks_for_errors_times_and_histograms_of_layers(made):
    report = Report.from_json((made / "r.json").read_bytes(), "r.json")
    assert len(report.histograms.weights) == report.weights == 13
    assert {h.name for h in report.histograms.activations} <= {t.name for t in report.tensors}
    assert len(report.histograms.activations) > 10
    assert len(report.errors) > 10
    assert report.profile is not None and len(report.profile.total_ms) == 2
    assert {"compare", "profile"} <= report.stages_s.keys()


def test_ranges_of_weights_are_those_of_their_codes(made):
    report = Report.from_json((made / "r.json").read_bytes(), "r.json")
    for weight in report.histograms.weights:
        # minmax, symmetric: the outermost value has the outermost code, -128 is to spare
        values = weight.bins
        assert weight.bits == 8 and weight.symmetric and weight.clip_share == 0
        assert weight.hi >= max(values.hi - values.width, -values.lo - values.width)
        assert weight.lo == pytest.approx(-weight.hi * 128 / 127)
        assert 0 < weight.least_hi <= weight.hi


def test_without_a_page_no_layer_is_compared(work):
    assert quantize("--json", "r.json").code == 0
    report = json.loads((work / "r.json").read_bytes())
    assert (report["errors"], report["profile"], report["histograms"]) == ([], None, None)
    assert "compare" not in report["stages_s"]


def test_markdown_is_written_for_md(work):
    assert quantize("--report", "out.md").code == 0
    assert (work / "out.md").read_text().startswith(f"### `{MODEL}`: ")


@pytest.mark.parametrize("name", ["out.txt", "out", "out.html.gz", "out.json"])
def test_another_suffix_is_refused_before_any_work_is_done(name, work):
    before = contents(work)
    done = quantize("--report", name)
    assert done.code == 2
    assert f"give '{name}' the suffix .html or .md" in done.message
    assert contents(work) == before


def test_a_page_replaces_nothing_without_force(work):
    (work / "page.html").write_text("mine")
    before = contents(work)
    assert "'page.html' exists; give --force" in quantize("--report", "page.html").message
    assert contents(work) == before
    assert quantize("--report", "page.html", "--force").code == 0


def test_a_run_that_fails_leaves_no_page(work):
    before = contents(work)
    done = quantize("--report", "page.html", "--min-speedup", "1000")
    assert done.code == 3
    assert contents(work) == before


def test_page_and_json_need_two_names(work):
    before = contents(work)
    done = quantize("--report", "a.html", "--json", "a.html")
    assert (
        done.code == 2
        and "'a.html' is to be the page and the report; give two names" in done.message
    )
    assert contents(work) == before


def test_the_page_lies_beside_the_report_unless_told_otherwise(work):
    (work / "r.json").write_bytes(made_report().to_json())
    assert ptq("report", "r.json").out.strip() == "wrote r.html"
    assert (work / "r.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"{}", "is no report"),
        (b'{"schema": 2}', "is a report of schema 2"),
    ],
)
def test_what_cannot_be_read_is_said(content, message, work):
    if content is not None:
        (work / "r.json").write_bytes(content)
    done = ptq("report", "r.json", "-o", "page.html")
    assert done.code == 2 and message in done.message
    assert not (work / "page.html").exists()


def test_the_report_itself_is_never_replaced(work):
    (work / "r.html").write_bytes(made_report().to_json())
    before = contents(work)
    assert ptq("report", "r.html", "--force").code == 2
    assert contents(work) == before


def test_no_model_code_is_needed_to_make_a_page(work):
    (work / "r.json").write_bytes(made_report().to_json())
    program = "import sys; from ptq.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    program += "print(sorted({'onnxruntime', 'onnx', 'onnx_ir', 'scipy'} & sys.modules.keys()))"
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program, "report", "r.json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
    assert run("report", "r.json", "-o", "r.md").returncode == 0
