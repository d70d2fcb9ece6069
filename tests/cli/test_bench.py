"""`ptq bench`: models side by side, and everything that can be wrong with the question."""

import signal
import subprocess
import time

import msgspec
import onnx
import pytest
from support.cli import command, contents, environment, ptq
from support.models import parse, write

import ptq as package
from ptq.report.bench import Bench
from ptq.runtime.footprint import Footprint

MODEL, QUANTIZED = "digits_cnn.onnx", "digits_cnn.int8.onnx"
QUICK = ("--seconds", "0.05")
SMALL = "g (float[N,3,H,W] image, float[N] scale) => (float[N,3,H,W] y) { y = Neg (image) }"


@pytest.fixture(scope="module")
def quantized(digits, tmp_path_factory):
    """The small network, quantized, whether or not that is faster here."""
    output = tmp_path_factory.mktemp("quantized") / QUANTIZED
    options = ("--calib-data", digits.calibration, "--samples", 4, "--place", "all")
    assert ptq("quantize", digits.model, *options, "-o", output).code == 0
    return output


@pytest.fixture
def pair(work, quantized):
    """The small network and its quantized model, in the folder."""
    (work / QUANTIZED).write_bytes(quantized.read_bytes())
    return work


@pytest.fixture
def at_once(monkeypatch):
    """Do not start a process for every model, where its memory is not what is looked at."""
    footprint = Footprint(load_ms=1.0, peak_rss_bytes=70_000_000, bare_rss_bytes=50_000_000)
    monkeypatch.setattr("ptq.benching.measure_footprint", lambda *_, **__: footprint)


def test_models_are_compared_with_the_first(pair):
    done = ptq("bench", MODEL, QUANTIZED, "--data", "digits_eval.npz", *QUICK)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "fed input float32 1x1x8x8 from digits_eval.npz"
    assert lines[3].split()[:3] == [MODEL, "0.15", "MB"]
    assert lines[4].split()[0] == QUANTIZED
    assert lines[6].split() == ["1", "thread", "median", "p10", "p90"]
    assert "±" in lines[8]
    assert lines[9].startswith(f"control, {MODEL} against itself: ")
    assert done.err == ""


def test_every_layer_of_both_models_is_in_the_profile(pair, at_once):
    done = ptq("bench", MODEL, QUANTIZED, "--profile", *QUICK, "--json", "r.json")
    assert done.code == 0
    found = msgspec.json.decode((pair / "r.json").read_bytes(), type=Bench, strict=True)
    assert found.profile.threads == 1
    rows = {layer.name: layer.kernels for layer in found.profile.layers}
    convolutions = [n.name for n in onnx.load(MODEL).graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 12
    for name in convolutions:
        floats, codes = rows[name]
        assert "Conv" in {k.op_type for k in floats}
        assert "QLinearConv" in {k.op_type for k in codes}
    for i, total in enumerate(found.profile.total_ms):
        assert sum(layer.ms[i] for layer in found.profile.layers) == pytest.approx(total)
    assert "where the time goes, 1 thread" in done.out
    assert f"\n{QUANTIZED}: " in done.out


def test_top_limits_what_is_shown(work, at_once):
    shown = [
        ptq("bench", MODEL, "--profile", "--top", top, *QUICK).out.splitlines() for top in (2, 3)
    ]
    assert len(shown[1]) == len(shown[0]) + 2, "one layer and one type of kernel more"


def test_json_decodes_into_its_type_and_holds_what_was_printed(pair, at_once):
    done = ptq(
        "bench", MODEL, QUANTIZED, *QUICK, "--threads", 1, "--threads", 2, "--json", "r.json"
    )
    found = msgspec.json.decode((pair / "r.json").read_bytes(), type=Bench, strict=True)
    assert [latency.threads for latency in found.latencies] == [1, 2]
    assert found.profile is None
    assert found.source == "random"
    assert [m.size_bytes for m in found.models] == [
        (pair / name).stat().st_size for name in (MODEL, QUANTIZED)
    ]
    for latency in found.latencies:
        for model in latency.models:
            assert f"{model.median_ms:.3f} ms" in done.out or f"{model.median_ms:.2f}" in done.out
        assert f"{latency.control:.2f}x ± {latency.control_spread - 1:.2f}" in done.out
    assert list(found.stages_s) == ["prepare", "load", "time"]


def test_a_model_can_be_compared_with_itself(work, at_once):
    done = ptq("bench", MODEL, MODEL, *QUICK)
    assert done.code == 0
    assert f"{MODEL} (2)" in done.out


def test_models_of_one_file_name_are_told_apart_by_their_folders(work, at_once):
    for name in ("a", "b"):
        (work / name).mkdir()
        (work / name / MODEL).write_bytes((work / MODEL).read_bytes())
    done = ptq("bench", f"a/{MODEL}", f"b/{MODEL}", *QUICK)
    assert f"\na/{MODEL} " in done.out
    assert f"\nb/{MODEL} " in done.out


def test_a_dynamic_batch_is_one_and_that_is_said(work, at_once):
    done = ptq("bench", MODEL, *QUICK)
    assert done.code == 0
    assert done.out.startswith("fed input float32 1x1x8x8 from random values\n")
    assert done.err == (
        "note: axis 0 ('N') of input 'input' is taken as 1; "
        "give --shape input=1x1x8x8 for another batch\n"
    )


@pytest.mark.parametrize("shape", ["2x1x8x8", "input=2x1x8x8"])
def test_a_shape_can_be_given(work, shape, at_once):
    done = ptq("bench", MODEL, "--shape", shape, *QUICK)
    assert done.out.startswith("fed input float32 2x1x8x8 from random values\n")
    assert done.err == ""


def test_shapes_of_several_inputs_can_be_given(work, at_once):
    write(work / "small.onnx", SMALL)
    done = ptq("bench", "small.onnx", "--shape", "image=4x3x5x6", *QUICK)
    assert done.out.startswith("fed image float32 4x3x5x6, scale float32 4 from random values\n")


def test_external_data_counts_and_is_found(work):
    model = parse("g (float[4] x) => (float[4] y) <float[4] w> { y = Add (x, w) }")
    (work / "sub").mkdir()
    path = work / "sub" / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    done = ptq("bench", "sub/m.onnx", "--profile", *QUICK, "--json", "r.json")
    assert done.code == 0, done.err
    found = msgspec.json.decode((work / "r.json").read_bytes(), type=Bench)
    assert found.models[0].size_bytes == path.stat().st_size + 16
    [layer] = found.profile.layers
    assert layer.name == "Add:y", "a node without a name is called after what it makes"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'MODEL...'"),
        (["missing.onnx"], 1, "'missing.onnx' does not exist"),
        (["digits_eval.npz"], 1, "'digits_eval.npz' is not an ONNX model"),
        ([MODEL, "other.onnx"], 2, "only models with the same inputs can be compared"),
        (["small.onnx"], 2, "axis 2 ('H') of input 'image' is dynamic"),
        (["small.onnx", "--shape", "1x3x8x8"], 2, "does not say of which input"),
        ([MODEL, "--shape", "1x3x"], 2, "'1x3x' is not NAME=SIZExSIZE"),
        ([MODEL, "--shape", "0x1x8x8"], 2, "'0x1x8x8' is not NAME=SIZExSIZE"),
        ([MODEL, "--shape", "1x1x9x8"], 2, "has shape (1, 1, 9, 8)"),
        ([MODEL, "--shape", "x=1x1x8x8"], 2, "there is no input 'x'; choose from: input"),
        ([MODEL, *("--shape", "1x1x8x8") * 2], 2, "twice"),
        ([MODEL, "--shape", "1x1x8x8", "--data", "digits_eval.npz"], 2, "exclude each other"),
        ([MODEL, "--data", "nowhere"], 2, "there is no data at 'nowhere'"),
        ([MODEL, "--threads", "0"], 2, "--threads"),
        ([MODEL, "--json", "digits_eval.npz"], 2, "'digits_eval.npz' exists; give --force"),
        ([MODEL, "--json", MODEL, "--force"], 2, "belongs to a model"),
        (["unknown.onnx"], 1, "'unknown.onnx': onnxruntime does not load the model"),
        (["picky.onnx"], 1, "onnxruntime fails on 'picky.onnx', fed from random values"),
        (["sequence.onnx"], 1, "'sequence.onnx': input 's' is seq(tensor(float))"),
    ],
    ids=str,
)
def test_a_question_that_cannot_be_answered_gets_a_reason(work, arguments, code, message, at_once):
    write(work / "small.onnx", SMALL)
    write(work / "other.onnx", "g (float[4] x) => (float[4] y) { y = Neg (x) }")
    unknown = parse("g (float[4] x) => (float[4] y) { y = Neg (x) }")
    unknown.graph.node[0].op_type = "NoSuchOperator"
    write(work / "unknown.onnx", unknown)
    # random integers are 0 and 1, which is no size for 6 elements
    write(
        work / "picky.onnx", "g (int64[2] s) => (float[A,B] y) <float[6] w> { y = Reshape (w, s) }"
    )
    write(
        work / "sequence.onnx",
        "g (seq(float[4]) s) => (float[N] y) { y = ConcatFromSequence <axis=0> (s) }",
    )
    before = contents(work)
    done = ptq("bench", *arguments, *QUICK)
    assert done.code == code
    assert message in done.message
    assert contents(work) == before


def test_the_same_can_be_asked_from_python(work, at_once):
    options = package.BenchOptions(seconds=0.05, shapes={"": (3, 1, 8, 8)})
    found = package.bench([MODEL], options)
    assert isinstance(found, package.Bench)
    assert found.inputs[0].shape == (3, 1, 8, 8)
    with pytest.raises(package.PtqError, match="nothing to compare"):
        package.bench([])


@pytest.mark.parametrize(("number", "delay_s"), [(signal.SIGTERM, 0), (signal.SIGINT, 1.5)])
def test_an_interruption_leaves_nothing(work, tmp_path_factory, number, delay_s):
    scratch = tmp_path_factory.mktemp("scratch")
    before = contents(work)
    process = subprocess.Popen(
        command("bench", MODEL, "--profile", "--seconds", 600, "--json", "r.json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(scratch), PYTHONDONTWRITEBYTECODE="1"),
    )
    deadline = time.monotonic() + 60
    while not list(scratch.glob("ptq-*")):  # it has begun to look at the footprint
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay_s)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    assert contents(work) == before
    # onnxruntime leaves a file of its own there
    assert not list(scratch.glob("ptq-*"))
