"""`ptq sensitivity` on the command line."""

import msgspec
import pytest
from support.cli import contents, ptq

from ptq.report.sensitivity import Sensitivity

MODEL = "digits_cnn.onnx"
DATA = ("--calib-data", "digits_calib.npz", "--samples", 16, "--trial-samples", 4)


def test_the_worst_layers_come_first_and_everything_is_in_the_json(work):
    done = ptq("sensitivity", MODEL, *DATA, "--top", 4, "--sort", "alone", "--json", "s.json")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split("  ")[0] == "operator"
    alone = [float(line.split(" dB")[0].split()[-1]) for line in lines[1:5]]
    assert alone == sorted(alone)
    assert lines[5].endswith("more layers; --top 0 shows all")
    found = msgspec.json.decode((work / "s.json").read_bytes(), type=Sensitivity)
    assert (found.samples, found.data, found.kept) == (4, "digits_calib.npz", None)
    again = ptq("sensitivity", MODEL, *DATA, "--json", "s.json")
    assert "--force" in again.message


def test_the_printed_recipe_is_one_that_makes_the_model_better(work):
    done = ptq("sensitivity", MODEL, *DATA, "--keep-float", 3)
    assert done.code == 0
    recipe = done.out[done.out.index("[[quantize.override]]") :]
    (work / "r.toml").write_text(recipe)
    sqnr = []
    for name, more in (("plain", ["--no-recipe"]), ("kept", ["--recipe", "r.toml"])):
        made = ptq(
            "quantize", MODEL, *DATA[:4], *more, "--place", "all", "--seconds", 0.01,
            "--eval-data", "digits_eval.npz", "-o", f"{name}.onnx", "--json", f"{name}.json",
            "--allow-larger",
        )  # fmt: skip
        assert made.code == 0
        report = msgspec.json.decode((work / f"{name}.json").read_bytes())
        sqnr.append(report["accuracy"]["sqnr_db"])
    assert sqnr[1] > sqnr[0] + 1


def test_what_is_quantized_is_what_the_recipe_says(work):
    (work / "ptq.toml").write_text("""
        [quantize]
        calib-data = "digits_calib.npz"
        samples = 16
        json = "of-quantize.json"
        output = "out.onnx"
        exclude = ["stem.conv"]
        [[quantize.override]]
        match = "head.conv"
        float = true
        """)
    done = ptq("sensitivity", MODEL, "--trial-samples", 2, "--json", "s.json", "--top", 0)
    assert done.code == 0
    found = msgspec.json.decode((work / "s.json").read_bytes(), type=Sensitivity)
    names = {layer.name for layer in found.layers}
    assert "block1.expand.conv" in names
    assert not names & {"stem.conv", "head.conv"}
    assert not (work / "of-quantize.json").exists()
    assert not (work / "out.onnx").exists()


def test_a_preset_holds_as_far_as_it_says_how_to_quantize(work):
    for preset in ("accurate", "smallest"):
        done = ptq("sensitivity", MODEL, *DATA, "--preset", preset, "--top", 1)
        assert done.code == 0


def test_a_second_run_goes_on(work):
    state = ("--state", "state.jsonl")
    first, second = (ptq("sensitivity", MODEL, *DATA, *state, "--tensors") for _ in range(2))
    assert first.code == second.code == 0
    assert "(weight)" in first.out
    [count] = [line.split()[0] for line in first.out.splitlines() if "measured" in line][-1:]
    assert f"{count} of them before" in second.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((MODEL,), 2, "calibration data"),
        (("gone.onnx", *DATA), 1, "gone.onnx"),
        ((MODEL, *DATA, "--keep-float", 1, "--min-sqnr", 30), 2, "exclude each other"),
        ((MODEL, *DATA, "--state", MODEL), 2, "is the float model itself"),
        ((MODEL, *DATA, "--state", "s", "--json", "s"), 2, "the same file"),
        ((MODEL, *DATA, "--state", "README"), 2, "no results of trials"),
        ((MODEL, *DATA, "--recipe", "dynamic.toml"), 2, "not of --scheme dynamic"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(work, arguments, code, message):
    (work / "README").write_text("a text\n")
    (work / "dynamic.toml").write_text('[quantize]\nscheme = "dynamic"\n')
    before = contents(work)
    done = ptq("sensitivity", *arguments)
    assert done.code == code
    assert message in done.message
    assert contents(work) == before
