"""`ptq check`: an exit code for everything that can come of it, and a message that helps."""

import json
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from support.cli import contents, ptq, run

import ptq as package
from ptq.report.check import Check

MODEL, GOOD, BAD = "digits_cnn.onnx", "good.onnx", "bad.onnx"
DATA = ("--data", "digits_eval.npz", "--threads", 1)
LABELS = ("--labels", "digits_eval.npz")
FEW = (*DATA, "--samples", 40)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """The small network, quantized well, and with ranges that cut off a tenth of the values."""
    folder = tmp_path_factory.mktemp("made")
    for name, calib in ((GOOD, "kl"), (BAD, "percentile:coverage=90")):
        options = ("--calib-data", digits.calibration, "--samples", 32, "--calib", calib)
        options += ("--place", "all", "--seconds", 0.02)  # whether or not that is faster here
        assert ptq("quantize", digits.model, *options, "-o", folder / name).code == 0
    return folder


@pytest.fixture
def there(work, made):
    """The float model, both quantized ones and the data, in the folder."""
    for name in (GOOD, BAD):
        (work / name).write_bytes((made / name).read_bytes())
    return work


# -- exit codes -------------------------------------------------------------------------------


def test_what_holds_exits_with_0(there):
    done = ptq("check", MODEL, GOOD, *DATA, *LABELS, "--max-drop", "0.5%", "--min-sqnr", 20)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[1].startswith("top-1 accuracy ")
    assert lines[1].endswith("≤ 0.5 points  holds")
    assert lines[-1] == "'good.onnx' holds: 2 figures checked"


def test_what_is_missed_exits_with_3_after_all_files_are_written(there):
    files = ("--junit", "j.xml", "--json", "c.json", "--markdown", "c.md")
    done = ptq("check", MODEL, BAD, *FEW, *LABELS, "--max-drop", "0.5%", *files)
    assert done.code == 3
    assert done.message.startswith("error: 'bad.onnx' misses 1 of 1: top-1 accuracy is worse by ")
    assert "missed" in done.out
    found = msgspec.json.decode((there / "c.json").read_bytes(), type=Check)
    assert [held.verdict for held in found.held] == ["missed"]
    [case] = ET.parse(there / "j.xml").getroot().findall("*/testcase")
    assert case[0].tag == "failure"
    assert (there / "c.md").read_text().startswith("**ptq check failed**")


def test_a_check_that_fails_names_the_layers_at_fault_and_the_next_command(there):
    done = ptq("check", MODEL, BAD, *FEW, "--min-sqnr", 20)
    assert done.code == 3
    _, _, faults = done.out.partition("layers at fault, the worst first\n")
    worst = faults.splitlines()[0].split()
    assert worst[1] == "Conv"
    assert "clips" in worst
    assert f"--exclude {worst[0]}" in faults
    [command] = [line.strip() for line in faults.splitlines() if line.startswith("  ptq compare")]
    assert command == f"ptq compare {MODEL} {BAD} --data digits_eval.npz --top 10"
    assert ptq(*command.split()[1:]).code == 0


def test_what_cannot_be_run_exits_with_1(there):
    assert "'nope.onnx' does not exist" in ptq("check", "nope.onnx", GOOD, *FEW,
                                                "--min-sqnr", 1).message  # fmt: skip
    (there / "cut.onnx").write_bytes((there / GOOD).read_bytes()[:1000])
    done = ptq("check", MODEL, "cut.onnx", *FEW, "--min-sqnr", 1)
    assert done.code == 1
    assert "cut.onnx" in done.message
    np.savez(there / "wrong.npz", input=np.zeros((2, 3, 8, 8), np.float32))
    done = ptq("check", MODEL, GOOD, "--data", "wrong.npz", "--min-sqnr", 1)
    assert done.code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "there is nothing to hold; give a threshold (--max-drop, --min-sqnr"),
        (("--speed",), "there is nothing to hold"),
        (("--update-baseline",), "--update-baseline needs a file to write; give --baseline"),
        (("--baseline", "b.json"), "there is no baseline 'b.json'; --update-baseline writes one"),
        (("--min-agreement", "99"), "--min-agreement 99 is no share of a whole"),
        (("--max-drop", "lots"), "--max-drop 'lots' is no number; write 0.5% or 0.005"),
        (("--max-drop", "2"), "write 2% if points are meant"),
        (("--min-sqnr", "nan"), "--min-sqnr 'nan' is not finite"),
        (("--min-sqnr", "1", "--confidence", "100%"), "--confidence 100% is no confidence"),
        (("--max-drop", "1%", "--metric", "top5"), "unknown metric 'top5'; did you mean 'topk'?"),
        (("--max-drop", "1%", "--metric", "topk:k=5"), "metric 'topk:k=5' needs labels"),
        (("--max-drop", "1%", "--metric", "sqnr"), "--max-drop cannot hold 'sqnr'"),
        (("--min-sqnr", "1", "--image", "resize=8"), "need images as data"),
        (("--min-sqnr", "1", "--json", MODEL), f"'{MODEL}' is read by this run; choose"),
        (("--min-sqnr", "1", "--junit", GOOD), f"'{GOOD}' is read by this run; choose"),
        (("--min-sqnr", "1", "--junit", "digits_eval.npz"), "is read by this run; choose"),
        (("--min-sqnr", "1", "--junit", "x", "--json", "x"), "are to be one file"),
        (("--min-sqnr", "1", "--json", "no/x"), "folder 'no' does not exist"),
        (("--baseline", GOOD, "--update-baseline"), f"'{GOOD}' is read by this run"),
    ],
)
def test_what_is_asked_wrongly_exits_with_2_and_writes_nothing(there, options, message):
    before = contents(there)
    done = ptq("check", MODEL, GOOD, "--data", "digits_eval.npz", "--samples", 4, *options)
    assert done.code == 2
    assert message in done.message
    assert done.out == ""
    assert contents(there) == before


def test_the_help_says_the_exit_codes():
    out = " ".join(ptq("check", "--help").out.split())
    assert (
        "Exit codes: 0 all holds, 3 a threshold or the baseline was missed (the table and all "
        "files are written first), 2 wrong usage or configuration, 1 could not be run." in out
    )


def test_the_exit_code_is_that_of_the_process(there):
    assert run("check", MODEL, BAD, *FEW, "--min-sqnr", 20).returncode == 3


# -- what is measured -------------------------------------------------------------------------


def test_every_threshold_is_one_row(there):
    done = ptq(
        "check", MODEL, GOOD, *FEW, *LABELS, "--json", "c.json", "--seconds", 0.05,
        "--max-drop", "5%", "--min-sqnr", 20, "--min-cosine", 0.9, "--min-agreement", "90%",
        "--max-size-ratio", "50%", "--min-speedup", 0.01, "--min-integer", "90%",
    )  # fmt: skip
    assert done.code == 0
    found = msgspec.json.decode((there / "c.json").read_bytes(), type=Check)
    assert [held.option for held in found.held] == [
        "--max-drop", "--min-agreement", "--min-sqnr", "--min-cosine", "--max-size-ratio",
        "--min-speedup", "--min-integer",
    ]  # fmt: skip
    assert found.latency is not None
    assert found.samples == 40


def test_figures_are_those_that_a_loop_over_the_samples_gives(there, digits):
    import onnxruntime as ort

    found = package.check(
        MODEL, GOOD, "digits_eval.npz",
        package.CheckOptions(labels=there / "digits_eval.npz", max_drop="90%", threads=1),
    )  # fmt: skip
    floats, codes = (
        ort.InferenceSession(name).run(None, {"input": digits.images()})[0]
        for name in (MODEL, GOOD)
    )
    truth = digits.labels()
    accuracy = [(outputs.argmax(1) == truth).mean() for outputs in (floats, codes)]
    # sessions with one batch and with many may round differently, by less than this
    assert found.figure("topk").reference == pytest.approx(accuracy[0], abs=1e-9)
    assert found.figure("topk").value == pytest.approx(accuracy[1], abs=2 / 597)
    noise = 10 * np.log10((floats.astype(float) ** 2).sum() / ((floats - codes) ** 2).sum())
    assert found.figure("sqnr").value == pytest.approx(noise, abs=0.2)
    assert found.figure("size_bytes").value == (there / GOOD).stat().st_size
    assert found.figure("topk").drop == pytest.approx(
        found.figure("topk").reference - found.figure("topk").value
    )


def test_without_labels_the_task_is_agreement(there):
    done = ptq("check", MODEL, GOOD, *FEW, "--max-drop", "10%", "--json", "c.json")
    assert done.code == 0
    found = json.loads((there / "c.json").read_bytes())
    assert found["held"][0]["figure"] == "agreement"


def test_a_metric_of_ones_own_is_held(there):
    (there / "mine.py").write_text("def zero(outputs, target):\n    return 0.0\n")
    done = ptq("check", MODEL, BAD, *FEW, "--metric", "mine:zero", "--max-drop", "0")
    assert done.code == 0
    assert done.out.splitlines()[1].startswith("zero ")


def test_the_noise_of_few_samples_is_said_and_can_be_let_pass(there):
    drop = ("--max-drop", "0.1%", "--samples", 30)
    strict = ptq("check", MODEL, BAD, *DATA, *drop, "--confidence", "99.99999%")
    lax = ptq("check", MODEL, GOOD, *DATA, *drop, "--noise", "pass")
    assert strict.code == 3
    assert lax.code == 0
    assert "within the noise of 30 samples (95%: " in lax.out
    assert "samples would tell" in lax.out


def test_files_of_an_earlier_run_are_replaced(there):
    for _ in range(2):
        done = ptq("check", MODEL, GOOD, *FEW, "--min-sqnr", 1, "--json", "c.json")
        assert done.code == 0


def test_options_come_from_a_recipe(there):
    (there / "ptq.toml").write_text(
        '[check]\ndata = "digits_eval.npz"\nsamples = 20\nmin-sqnr = 500\nmax-size-ratio = 0.9\n'
    )
    done = ptq("check", MODEL, GOOD)
    assert done.code == 3
    assert "misses 1 of 2: SQNR is" in done.message
    assert ptq("check", MODEL, GOOD, "--min-sqnr", 1).code == 0


# -- the baseline -----------------------------------------------------------------------------


def test_a_regression_names_model_figure_was_is_and_the_layers_that_grew(there):
    keep = ("--baseline", "b.json", "--name", "digits")
    assert ptq("check", MODEL, GOOD, *FEW, *LABELS, *keep, "--update-baseline").code == 0
    assert ptq("check", MODEL, GOOD, *FEW, *LABELS, *keep).code == 0
    done = ptq("check", MODEL, BAD, *FEW, *LABELS, *keep)
    assert done.code == 3
    assert "'digits' misses" in done.message
    assert "top-1 accuracy was " in done.message
    assert "(tolerance 2.5 points)" in done.message  # one of 40 samples
    assert "by itself, was" in done.out
    before = json.loads((there / "b.json").read_bytes())["models"]["digits"]
    assert set(before["figures"]) == {
        "agreement", "cosine", "integer_kernels", "size_bytes", "sqnr", "topk",
    }  # fmt: skip
    assert before["samples"] == 40
    assert len(before["layers"]) > 10


def test_a_better_model_hints_at_the_update(there):
    keep = ("--baseline", "b.json", "--name", "digits")
    assert ptq("check", MODEL, BAD, *FEW, *keep, "--update-baseline").code == 0
    done = ptq("check", MODEL, GOOD, *FEW, *keep)
    assert done.code == 0
    assert "better than the baseline: agreement with float, SQNR, cosine" in done.out
    assert "--update-baseline" in done.out


def test_a_model_that_misses_a_threshold_becomes_no_baseline(there):
    done = ptq(
        "check", MODEL, BAD, *FEW, "--min-sqnr", 20, "--baseline", "b.json", "--update-baseline"
    )
    assert done.code == 3
    assert "the baseline was not updated" in done.err
    assert not (there / "b.json").exists()


def test_the_same_update_writes_the_same_bytes(there):
    update = ("--baseline", "b.json", "--update-baseline")
    assert ptq("check", MODEL, GOOD, *FEW, *update).code == 0
    before = (there / "b.json").read_bytes()
    (there / "b.json").unlink()
    assert ptq("check", MODEL, GOOD, *FEW, *update).code == 0
    assert (there / "b.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (FEW, "the baseline holds 'topk' of 'good.onnx', which this run does not measure"),
        ((*DATA, "--samples", 39, *LABELS), "has figures of 40 samples, these are 39"),
        ((*FEW, *LABELS, "--name", "god.onnx"), "did you mean --name 'good.onnx'?"),
    ],
)
def test_a_baseline_of_something_else_is_refused(there, options, message):
    keep = ("--baseline", "b.json")
    assert ptq("check", MODEL, GOOD, *FEW, *LABELS, *keep, "--update-baseline").code == 0
    done = ptq("check", MODEL, GOOD, *options, *keep)
    assert done.code == 2
    assert message in done.message


def test_labels_are_part_of_what_the_baseline_is_about(there):
    keep = ("--baseline", "b.json")
    assert ptq("check", MODEL, GOOD, *FEW, *LABELS, *keep, "--update-baseline").code == 0
    np.save(there / "other.npy", np.zeros(597, np.int64))
    done = ptq("check", MODEL, GOOD, *FEW, "--labels", "other.npy", *keep)
    assert done.code == 2
    assert "other data or labels" in done.message
