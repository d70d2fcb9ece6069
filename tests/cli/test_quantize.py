"""`ptq quantize`: what it writes, prints and refuses to touch."""

import json

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.cli import contents, ptq

from ptq import Report

MODEL, CALIB, EVAL = "digits_cnn.onnx", "digits_calib.npz", "digits_eval.npz"
OUTPUT = "digits_cnn.int8.onnx"
QUICK = ("--calib-data", CALIB, "--samples", 8)


def metadata(path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_the_result_appears_beside_the_input(work):
    folder = work / "models"
    folder.mkdir()
    (work / MODEL).rename(folder / MODEL)
    done = ptq("quantize", folder / MODEL, *QUICK)
    assert done.code == 0
    assert {p.name for p in folder.iterdir()} == {MODEL, OUTPUT}
    assert f"wrote {folder / OUTPUT}" in done.out


def test_the_input_and_the_data_are_not_touched(work):
    before = contents(work)
    assert ptq("quantize", MODEL, *QUICK, "--eval-data", EVAL).code == 0
    after = contents(work)
    assert after.pop(OUTPUT)
    assert after == before


def test_the_table_shows_size_speed_and_accuracy(work):
    done = ptq("quantize", MODEL, "--calib-data", CALIB, "--eval-data", EVAL, "--labels", EVAL)
    assert done.code == 0
    assert "accuracy" not in done.err, "there is nothing to warn of but, on some machines, speed"
    rows = {line.split("  ")[0].strip(): line for line in done.out.splitlines()}
    assert "smaller" in rows["size"]
    assert "control" in rows["latency (1 thread)"]
    assert "dB" in rows["SQNR"]
    assert "597 evaluation samples" in rows["SQNR"]
    assert "98.66%" in rows["top-1 accuracy"]
    assert "points" in rows["top-1 accuracy"]
    assert "12 QLinearConv" in done.out
    assert done.out.rstrip().endswith(f"wrote {OUTPUT}")


def test_accuracy_on_the_calibration_data_is_called_that(work):
    done = ptq("quantize", MODEL, *QUICK)
    assert "8 calibration samples" in done.out
    assert "note: accuracy was measured on the calibration data; give other data" in done.err


def test_calibration_data_given_twice_is_no_evaluation(work):
    (work / "copy.npz").write_bytes((work / CALIB).read_bytes())
    done = ptq("quantize", MODEL, "--calib-data", CALIB, "--eval-data", "copy.npz")
    assert done.code == 0
    assert "128 calibration samples" in done.out
    assert "note: accuracy was measured on the calibration data; give other data" in done.err


def test_a_ruined_model_is_called_that(work):
    done = ptq("quantize", MODEL, *QUICK, "--calib", "scale:shrink=0.1")
    assert done.code == 0
    assert "note: the outputs are far from the float model's (" in done.err
    assert "try another --calib, or keep the operators that matter in float" in done.err


def test_an_existing_output_is_kept(work):
    (work / OUTPUT).write_text("precious")
    before = contents(work)
    done = ptq("quantize", MODEL, *QUICK)
    assert done.code == 2
    assert done.message == f"error: '{OUTPUT}' exists; give --force to replace it, or another name"
    assert contents(work) == before


def test_force_replaces_output_and_report(work):
    (work / OUTPUT).write_text("old")
    (work / "r.json").write_text("old")
    assert ptq("quantize", MODEL, *QUICK, "--json", "r.json", "--force").code == 0
    onnx.checker.check_model(OUTPUT)
    assert json.loads((work / "r.json").read_bytes())["schema"] == 1


def test_force_never_replaces_the_model_or_the_data(work):
    (work / "link.onnx").symlink_to(MODEL)
    (work / "hard.onnx").hardlink_to(MODEL)
    before = contents(work)
    for output in (MODEL, f"../{work.name}/{MODEL}", "link.onnx", "hard.onnx"):
        done = ptq("quantize", MODEL, *QUICK, "-o", output, "--force")
        assert done.code == 2
        assert "is the float model itself" in done.message
    for option in ("-o", "--json"):
        done = ptq("quantize", MODEL, *QUICK, "--eval-data", EVAL, option, EVAL, "--force")
        assert done.code == 2
        assert f"'{EVAL}' is read by this run" in done.message
    assert contents(work) == before


def test_the_report_decodes_into_its_type_and_holds_what_it_says(work):
    done = ptq(
        *("quantize", MODEL, "--calib-data", CALIB, "--eval-data", EVAL, "--labels", EVAL),
        *("--json", "r.json", "-o", "out.onnx"),
    )
    assert done.code == 0
    report = msgspec.json.decode((work / "r.json").read_bytes(), type=Report, strict=True)
    assert report.schema == 1
    assert (report.input.path, report.output.path) == (MODEL, "out.onnx")
    assert report.input.size_bytes == (work / MODEL).stat().st_size
    assert report.output.size_bytes == (work / "out.onnx").stat().st_size
    assert report.calibration.samples == 128
    assert report.calibration.role == "calibration"
    assert not report.calibration.synthetic
    assert report.evaluation.samples == 597
    assert report.accuracy.float_top1 == pytest.approx(589 / 597), "as tests/models/README.md says"
    assert report.latency.rounds > 0
    assert report.integer_nodes["Conv"] == report.ran_integer["QLinearConv"] == 12
    assert report.float_nodes == ()
    assert report.weights == 13
    assert set(report.stages_s) >= {"prepare", "observe", "solve", "emit", "evaluate", "time"}
    assert report.peak_rss_bytes > 10e6
    assert all(t.scale > 0 and t.lo <= 0 <= t.hi for t in report.tensors)
    assert all(0 <= t.clip_share < 0.01 for t in report.tensors)


def test_the_reported_digest_is_that_of_the_file_written(work):
    from ptq.graph.load import model_digest

    ptq("quantize", MODEL, *QUICK, "--json", "r.json")
    report = json.loads((work / "r.json").read_bytes())
    assert report["output"]["sha256"] == model_digest(OUTPUT)
    assert report["input"]["sha256"] == model_digest(MODEL)


def test_the_reported_accuracy_is_that_of_the_file_written(work, digits):
    ptq("quantize", MODEL, *QUICK, "--eval-data", EVAL, "--labels", EVAL, "--json", "r.json")
    report = json.loads((work / "r.json").read_bytes())
    session = ort.InferenceSession(OUTPUT, providers=["CPUExecutionProvider"])
    # one row at a time, as ptq feeds them: large batches take other kernels
    rows = [session.run(None, {"input": image[None]})[0] for image in digits.images()]
    right = np.concatenate(rows).argmax(1) == digits.labels()
    assert report["accuracy"]["quantized_top1"] == pytest.approx(right.mean())


def test_the_recipe_says_how_without_times_and_places(work, digits):
    ptq("quantize", MODEL, *QUICK, "--calib", "mse", "--exclude", "stem.*")
    text = metadata(OUTPUT)["ptq"]
    recipe = json.loads(text)
    assert recipe["config"]["calib"] == "mse"
    assert recipe["config"]["exclude"] == ["stem.*"]
    assert recipe["samples"] == 8
    assert recipe["random_data"] is False
    assert len(recipe["model_sha256"]) == len(recipe["data_sha256"]) == 64
    assert set(recipe) == {
        *("ptq", "config", "model_sha256", "data_sha256", "samples", "random_data"),
        *("images", "placement", "schema"),
    }
    for place in (MODEL, CALIB, str(work), work.name):
        assert place not in text


def test_metadata_of_the_input_survive(work):
    model = onnx.load(MODEL)
    model.metadata_props.add(key="author", value="me")
    onnx.save(model, "with.onnx")
    ptq("quantize", "with.onnx", *QUICK)
    assert metadata("with.int8.onnx")["author"] == "me"


def test_names_types_and_shapes_of_inputs_and_outputs_survive(work):
    ptq("quantize", MODEL, *QUICK)
    before, after = onnx.load(MODEL).graph, onnx.load(OUTPUT).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)


def test_random_data_is_marked_everywhere(work):
    done = ptq("quantize", MODEL, "--calib-data", "random", "--json", "r.json")
    assert done.code == 0
    assert "note: calibrated on random numbers: ranges and accuracy mean nothing" in done.err
    assert "32 random calibration samples" in done.out
    assert json.loads(metadata(OUTPUT)["ptq"])["random_data"] is True
    report = json.loads((work / "r.json").read_bytes())
    assert report["calibration"]["synthetic"] is True
    assert any("random" in notice for notice in report["notices"])


def test_random_statistics_stay_marked(work):
    ptq("calibrate", MODEL, "--calib-data", "random", "-o", "s.npz")
    done = ptq("quantize", MODEL, "--stats", "s.npz", "--eval-data", EVAL)
    assert done.code == 0
    assert "note: calibrated on random numbers" in done.err
    assert json.loads(metadata(OUTPUT)["ptq"])["random_data"] is True


def test_the_seed_changes_random_data_only(work):
    for seed in (0, 1):
        ptq("quantize", MODEL, "--calib-data", "random", "--seed", seed, "-o", f"r{seed}.onnx")
    digests = [json.loads(metadata(f"r{i}.onnx")["ptq"])["data_sha256"] for i in (0, 1)]
    assert digests[0] != digests[1]


def test_excluded_nodes_stay_float(work):
    ptq("quantize", MODEL, *QUICK, "--exclude", "stem.*", "--exclude", "logits", "--json", "r.json")
    report = json.loads((work / "r.json").read_bytes())
    reasons = {name: f["why"] for f in report["float_nodes"] for name in f["names"]}
    assert reasons["stem.conv"] == reasons["logits"] == "excluded by --exclude"
    assert report["ran_integer"]["QLinearConv"] == 11
    assert "QGemm" not in report["ran_integer"]


def test_only_the_operator_types_asked_for_become_integer(work):
    done = ptq("quantize", MODEL, *QUICK, "--op-types", "Conv, Gemm", "--json", "r.json")
    assert done.code == 0
    report = json.loads((work / "r.json").read_bytes())
    # a Clip or Relu after a convolution is absorbed into it
    assert set(report["integer_nodes"]) == {"Conv", "Gemm", "Clip", "Relu"}
    assert {f["op_type"]: f["why"] for f in report["float_nodes"]}["Add"] == "not among --op-types"


def test_samples_limits_what_is_read(work):
    ptq("quantize", MODEL, *QUICK, "--json", "r.json")
    assert json.loads((work / "r.json").read_bytes())["calibration"]["samples"] == 8


def test_asking_for_more_samples_than_there_are_is_noted(work):
    done = ptq("quantize", MODEL, "--calib-data", CALIB, "--samples", 1000)
    assert done.code == 0
    assert "note: digits_calib.npz: has 128 samples, fewer than the 1000 asked for" in done.err


def test_a_dry_run_needs_no_data_and_writes_nothing(work):
    before = contents(work)
    done = ptq("quantize", MODEL, "--dry-run")
    assert done.code == 0
    assert contents(work) == before
    assert "26 of 26 nodes would run as integer kernels" in done.out


def test_a_dry_run_predicts_what_a_run_does(work):
    options = ("--exclude", "block2.*", "--op-types", "Conv,Add")
    dry = ptq("quantize", MODEL, "--dry-run", *options)
    ptq("quantize", MODEL, *QUICK, *options, "--json", "r.json")
    report = json.loads((work / "r.json").read_bytes())
    total = sum(report["integer_nodes"].values())
    assert f"\n{total} of 26 nodes would run as integer kernels" in dry.out


def test_a_dry_run_refuses_what_a_run_refuses(work):
    assert (
        "unknown calibration method" in ptq("quantize", MODEL, "--dry-run", "--calib", "x").message
    )
    assert "matches no node" in ptq("quantize", MODEL, "--dry-run", "--exclude", "x").message


def test_a_small_model_grows_only_if_allowed(work):
    from support.models import write

    text = "g (float[N,2,4,4] x) => (float[N,2,4,4] y) <float[2,2,1,1] w> { y = Conv (x, w) }"
    write(work / "tiny.onnx", text)
    before = contents(work)
    done = ptq("quantize", "tiny.onnx", "--calib-data", "random")
    assert done.code == 1
    assert "outweigh such small weights" in done.message
    assert done.message.endswith("keep the float model, or give --allow-larger")
    assert contents(work) == before
    done = ptq("quantize", "tiny.onnx", "--calib-data", "random", "--allow-larger")
    assert done.code == 0
    onnx.checker.check_model("tiny.int8.onnx")


def test_statistics_give_the_same_model_as_the_data(work):
    ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", "s.npz")
    for method in ("kl", "percentile:coverage=99.9"):  # e2e/test_reproducible.py has them all
        ptq("quantize", MODEL, "--calib-data", CALIB, "--calib", method, "-o", "a.onnx", "--force")
        ptq("quantize", MODEL, "--stats", "s.npz", "--calib", method, "-o", "b.onnx", "--force")
        assert (work / "a.onnx").read_bytes() == (work / "b.onnx").read_bytes()


def test_statistics_need_no_data_and_say_that_nothing_was_measured(work):
    ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", "s.npz")
    done = ptq("quantize", MODEL, "--stats", "s.npz", "--calib", "mse")
    assert done.code == 0
    assert "note: accuracy and latency were not measured; give --eval-data" in done.err
    assert "not measured" in done.out


@pytest.mark.parametrize(
    "name", ["a b.onnx", "ünï ✓.onnx", "model", ".onnx", "m.v1.onnx", "-m.onnx"]
)
def test_any_file_name_will_do(work, name):
    (work / MODEL).rename(work / name)
    done = ptq("quantize", *QUICK, "--", name)
    assert done.code == 0, done.err
    [output] = [p for p in work.iterdir() if p.suffix == ".onnx" and ".int8" in p.name]
    onnx.checker.check_model(str(output))


def test_the_working_directory_may_be_anywhere(work, monkeypatch):
    folder = work / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = ptq(
        *("quantize", f"../{MODEL}", "--calib-data", f"../{CALIB}", "--samples", 4),
        *("-o", "here.onnx"),
    )
    assert done.code == 0
    assert [p.name for p in folder.iterdir()] == ["here.onnx"]


def test_a_link_to_a_model_is_followed_and_its_folder_kept(work):
    folder = work / "links"
    folder.mkdir()
    (folder / "model.onnx").symlink_to(work / MODEL)
    assert ptq("quantize", folder / "model.onnx", *QUICK).code == 0
    assert (folder / "model.int8.onnx").is_file()
    assert (folder / "model.onnx").is_symlink()


def test_the_file_has_the_permissions_a_new_file_has(work):
    (work / "new").write_text("")
    ptq("quantize", MODEL, *QUICK, "--json", "r.json")
    for name in (OUTPUT, "r.json"):
        assert (work / name).stat().st_mode == (work / "new").stat().st_mode
