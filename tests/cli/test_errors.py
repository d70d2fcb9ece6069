"""Whatever is wrong ends in one line that names it and a remedy, and leaves nothing on disk."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.cli import contents, ptq
from support.models import parse, write

from ptq.runtime.host import host_target
from ptq.targets import target_names

MODEL, CALIB, EVAL = "digits_cnn.onnx", "digits_calib.npz", "digits_eval.npz"
DATA = ("--calib-data", CALIB)

CONV = """
g (float[N,3,16,16] x) => (float[N,32,16,16] y)
<float[32,3,3,3] w> { y = Conv <pads = [1,1,1,1]> (x, w) }
"""


def images(count=4, **changes) -> np.ndarray:
    """Return digits-like input, or the same in another shape or type."""
    rng = np.random.default_rng(0)
    shape = changes.get("shape", (count, 1, 8, 8))
    return rng.standard_normal(shape).astype(changes.get("dtype", np.float32))


@pytest.fixture
def refused(work):
    """Run a command that must fail and leave nothing; return its message."""

    def run(code: int, *arguments: object) -> str:
        before = contents(work)
        done = ptq(*arguments)
        assert done.code == code, done.out + done.err
        assert done.out == ""
        assert contents(work) == before
        return done.message

    return run


# -- the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quantize", "inspect"])
def test_a_missing_model(refused, name):
    message = refused(1, name, "nope.onnx")
    assert "'nope.onnx' does not exist; check the name" in message


def test_a_folder_in_place_of_a_model(refused, work):
    (work / "folder").mkdir()
    assert "'folder' is a directory" in refused(2, "quantize", "folder", *DATA)


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"\x08\x07", b"PK\x03\x04" + bytes(100)], ids=range(4)
)
def test_a_file_that_is_no_model(refused, work, content):
    (work / "no.onnx").write_bytes(content)
    message = refused(1, "quantize", "no.onnx", *DATA)
    assert "'no.onnx' is not an ONNX model" in message


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_model_that_is_cut_off(refused, work, kept):
    whole = (work / MODEL).read_bytes()
    (work / "cut.onnx").write_bytes(whole[: int(len(whole) * kept)])
    assert "cut.onnx" in refused(1, "quantize", "cut.onnx", *DATA)


def test_a_model_that_is_quantized_already(refused, work):
    ptq("quantize", MODEL, *DATA, "--samples", 4)
    message = refused(1, "quantize", "digits_cnn.int8.onnx", *DATA)
    assert "is quantized already" in message
    assert message.endswith("give the float model it was made from")


def test_a_model_of_float16(refused, work):
    model = onnx.load(MODEL)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, "half.onnx")
    message = refused(1, "quantize", "half.onnx", *DATA)
    assert "the model is float16" in message
    assert "convert it to float32 first" in message


def test_a_model_without_anything_to_quantize(refused, work):
    write(work / "relu.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    message = refused(1, "quantize", "relu.onnx", "--calib-data", "random")
    assert "nothing in 'relu.onnx' can be quantized" in message
    assert f"1 Relu: no integer kernel on target '{host_target()}'" in message
    assert "`ptq inspect`" in message


def test_excluding_everything(refused):
    message = refused(1, "quantize", MODEL, *DATA, "--exclude", "*")
    assert "12 Conv: excluded by --exclude" in message


def test_weights_that_are_not_finite(refused, work):
    w = np.zeros((32, 3, 3, 3), np.float32)
    w[3, 1, 2, 0] = np.nan
    write(work / "nan.onnx", parse(CONV, {"w": w}))
    message = refused(1, "quantize", "nan.onnx", "--calib-data", "random")
    assert "NaN or infinite value" in message
    assert "'w'" in message or "'y'" in message


def test_external_data_that_is_missing(refused, work):
    save_external(work / "big.onnx")
    (work / "big.onnx.data").unlink()
    message = refused(1, "quantize", "big.onnx", *DATA)
    assert "big.onnx.data" in message


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "sub/../../outside.data"])
def test_external_data_outside_the_folder(refused, work, location):
    folder = work / "models"
    (folder / "sub").mkdir(parents=True)
    save_external(folder / "big.onnx")
    (folder / "big.onnx.data").rename(work / "outside.data")
    model = onnx.load(folder / "big.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "big.onnx").write_bytes(model.SerializeToString())
    message = refused(1, "quantize", folder / "big.onnx", *DATA)
    assert location in message


def save_external(path: Path) -> None:
    model = onnx.load(MODEL)
    onnx.save_model(
        model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
    )


# -- the data ---------------------------------------------------------------------------------


def test_no_data(refused):
    message = refused(2, "quantize", MODEL)
    assert "quantizing needs calibration data; give one of: " in message
    assert "an .npz file" in message
    assert "random (made-up values, for trials only)" in message


def test_data_that_is_missing(refused):
    message = refused(2, "quantize", MODEL, "--calib-data", "nope.npz")
    assert "there is no data at 'nope.npz'; give one of: " in message


def test_evaluation_data_that_is_missing(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--eval-data", "nope.npz")
    assert "there is no data at 'nope.npz'" in message


def test_an_empty_folder_of_data(refused, work):
    (work / "empty").mkdir()
    message = refused(1, "quantize", MODEL, "--calib-data", "empty")
    assert "directory 'empty' is empty; give one of" in message


def test_data_without_a_sample(refused, work, savez):
    savez("none.npz", input=images(0))
    message = refused(1, "quantize", MODEL, "--calib-data", "none.npz")
    assert "none.npz" in message
    assert "at least one" in message


def test_a_damaged_file_of_data(refused, work):
    (work / "bad.npz").write_bytes((work / CALIB).read_bytes()[:3000])
    assert "bad.npz" in refused(1, "quantize", MODEL, "--calib-data", "bad.npz")


def test_an_input_of_another_name(refused, savez):
    savez("other.npz", image=images(), mask=images())
    message = refused(1, "quantize", MODEL, "--calib-data", "other.npz")
    assert "no array for input 'input'" in message
    assert "the data has: image, mask; the model wants: input" in message


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((4, 8, 8), "(4, 8, 8), the model wants (N, 1, 8, 8)"),
        ((4, 3, 8, 8), "(1, 3, 8, 8), the model wants (N, 1, 8, 8)"),
        ((4, 8, 8, 1), "channels-last"),
    ],
    ids=str,
)
def test_an_input_of_another_shape(refused, savez, shape, remedy):
    savez("shape.npz", input=images(shape=shape))
    message = refused(1, "quantize", MODEL, "--calib-data", "shape.npz")
    assert "'input'" in message
    assert remedy in message


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.complex64], ids=lambda t: t.__name__)
def test_an_input_of_another_type(refused, savez, dtype):
    savez("type.npz", input=np.ones((4, 1, 8, 8), dtype))
    message = refused(1, "quantize", MODEL, "--calib-data", "type.npz")
    assert f"input 'input' is {np.dtype(dtype)}, the model wants float32" in message


def test_float64_is_cast_and_noted(work, savez):
    savez("wide.npz", input=images().astype(np.float64))
    done = ptq("quantize", MODEL, "--calib-data", "wide.npz")
    assert done.code == 0
    assert "note: wide.npz: input 'input' is cast from float64 to float32" in done.err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("threads", [1, 2])
def test_data_that_is_not_finite(refused, savez, value, threads):
    bad = images(6)
    bad[4, 0, 3, 3] = value
    savez("nan.npz", input=bad)
    message = refused(1, "quantize", MODEL, "--calib-data", "nan.npz", "--threads", threads)
    assert "tensor 'input' takes a NaN or infinite value in calibration sample 4" in message
    assert message.endswith("check the preprocessing of the data")


def test_values_too_large_for_the_network(refused, work, savez):
    write(work / "conv.onnx", CONV)
    savez("huge.npz", x=np.full((2, 3, 16, 16), 3e38, np.float32))
    message = refused(1, "quantize", "conv.onnx", "--calib-data", "huge.npz")
    assert "tensor 'y' takes a NaN or infinite value in calibration sample 0" in message


def test_a_function_that_is_not_there(refused):
    message = refused(2, "quantize", MODEL, "--calib-data", "no_such_module:feeds")
    assert "there is no module 'no_such_module'" in message


def test_a_function_that_fails(refused, work, monkeypatch):
    (work / "failing_feeds.py").write_text("def feeds():\n    raise ValueError('no disk')\n")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    message = refused(1, "quantize", MODEL, "--calib-data", "failing_feeds:feeds")
    assert "function 'failing_feeds:feeds' raised ValueError: no disk" in message


def test_labels_without_evaluation_data(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--labels", EVAL)
    assert message == "error: labels need evaluation data; give --eval-data as well"


def test_a_file_of_labels_that_is_missing(refused):
    message = refused(1, "quantize", MODEL, *DATA, "--eval-data", EVAL, "--labels", "nope.txt")
    assert "cannot read labels from 'nope.txt'" in message


@pytest.mark.parametrize("count", [3, 596, 598])
def test_a_wrong_number_of_labels(refused, work, count):
    (work / "labels.txt").write_text("\n".join(["3"] * count))
    message = refused(1, "quantize", MODEL, *DATA, "--eval-data", EVAL, "--labels", "labels.txt")
    assert f"there are {count} labels" in message


def test_labels_for_a_model_without_class_scores(refused, work, savez):
    write(work / "conv.onnx", CONV)
    savez("x.npz", input=images(shape=(4, 3, 16, 16)))
    savez("conv.npz", x=images(shape=(4, 3, 16, 16)), labels=np.arange(4))
    message = refused(
        *(1, "quantize", "conv.onnx", "--calib-data", "conv.npz", "--allow-larger"),
        *("--eval-data", "conv.npz", "--labels", "conv.npz"),
    )
    assert "no output looks like class scores" in message


def test_evaluation_data_that_is_not_finite(refused, savez):
    bad = images(6)
    bad[4, 0, 3, 3] = np.nan
    savez("nan.npz", input=bad)
    message = refused(1, "quantize", MODEL, *DATA, "--eval-data", "nan.npz")
    assert "sample 4" in message


@pytest.mark.parametrize("shift", [1, -1, 100])
def test_labels_that_are_no_classes_of_the_model(refused, work, digits, shift):
    (work / "labels.txt").write_text("\n".join(map(str, digits.labels() + shift)))
    message = refused(1, "quantize", MODEL, *DATA, "--eval-data", EVAL, "--labels", "labels.txt")
    assert "10 classes" in message


def test_options_for_images_without_images(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--image", "resize=8")
    assert "--image and --image-config need images as data" in message


# -- the options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("klx", "unknown calibration method 'klx'; did you mean 'kl'?"),
        ("percentil", "did you mean 'percentile'?"),
        ("", "unknown calibration method ''; choose one of: aciq, auto, cosine, dorefa"),
        ("kl:binz=3", "'binz'; did you mean 'bins'?"),
        ("kl:bins", "write a calibration method with options as kl:option=value"),
        ("kl:bins=many", "'kl'"),
        ("kl:bins=-1", "'kl'"),
        ("percentile:coverage=200", "<= 100"),
        ("minmax:x=1", "it has none"),
    ],
)
def test_a_wrong_range_method(refused, method, reason):
    assert reason in refused(2, "quantize", MODEL, *DATA, "--calib", method)


def test_a_wrong_weight_range_method(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--weight-method", "minmx")
    assert "unknown weight quantizer 'minmx'; did you mean 'minmax'?" in message


def test_a_method_is_checked_before_the_model_is_read(refused):
    assert "unknown calibration method" in refused(2, "quantize", "nope.onnx", "--calib", "x")


def test_an_objective_without_its_method(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--qcode-objective", "output")
    assert message == "error: --qcode-objective output needs --calib qcode, not kl"


def test_an_unknown_operator_type(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--op-types", "Conv,Convolution")
    assert "operator type 'Convolution' has no integer kernel" in message
    assert "choose from: Add, " in message


def test_an_exclusion_that_matches_nothing(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--exclude", "stem.*", "--exclude", "stm.*")
    assert message == (
        "error: --exclude 'stm.*' matches no node; `ptq inspect` lists the node names"
    )


@pytest.mark.parametrize("bits", [0, 9, 16, -8])
def test_bits_that_are_not_supported(refused, bits):
    message = refused(2, "quantize", MODEL, *DATA, "--bits", bits)
    assert message == (f"error: --bits {bits} is not supported by --scheme static; use 1 to 8")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--bits", 1], "weight quantizer 'mse' has 2 to 16 bits, not 1"),
        (["--weight-method", "bwn"], "weight quantizer 'bwn' has 1 bit, not 8"),
    ],
    ids=["too few", "too many"],
)
def test_bits_that_a_weight_quantizer_has_not(refused, options, wrong):
    message = refused(2, "quantize", MODEL, *DATA, *options)
    assert message == f"error: {wrong}; choose another --bits, or another --weight-method"


@pytest.mark.parametrize("option", [["--rounding", "adaround"], ["--fine-tune", "pact"]])
def test_levels_of_their_own_are_not_learned(refused, option):
    message = refused(2, "quantize", MODEL, *DATA, "--bits", 1, "--weight-method", "bwn", *option)
    assert "--weight-method bwn has levels of its own; leave one of them out" in message


def test_an_unknown_target(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--target", "tpu")
    assert message == f"error: unknown target 'tpu'; choose one of: {', '.join(target_names())}"


@pytest.mark.parametrize(
    "option",
    [
        ("--samples", 0),
        ("--threads", 0),
        ("--ema-decay", 1),
        ("--seed", -1),
        ("--sample-size", -1),
        ("--bits", "eight"),
        ("--weights", "per-chanel"),
        ("--qcode-objective", "best"),
    ],
    ids=str,
)
def test_a_value_out_of_range(refused, option):
    assert f"'{option[0]}'" in refused(2, "quantize", MODEL, *DATA, *option)


# -- the places -------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist(refused):
    message = refused(2, "quantize", MODEL, *DATA, "-o", "no/such/out.onnx")
    assert message == "error: folder 'no/such' does not exist; create it first"


def test_a_report_into_a_folder_that_does_not_exist(refused):
    message = refused(2, "quantize", MODEL, *DATA, "--json", "no/report.json")
    assert message == "error: folder 'no' does not exist; create it first"


def test_a_folder_as_output(refused):
    assert "is a directory" in refused(2, "quantize", MODEL, *DATA, "-o", ".", "--force")


def test_an_empty_name_as_output(refused):
    assert "is a folder; give the name of a file" in refused(
        2, "quantize", MODEL, *DATA, "-o", "", "--force"
    )


def test_a_name_that_is_too_long(refused):
    message = refused(2, "quantize", MODEL, *DATA, "-o", "n" * 300)
    assert "File name too long; choose another name" in message


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_a_link_or_a_device_as_output(refused, work, option):
    (work / "dangling.onnx").symlink_to("nowhere.onnx")
    (work / "link.onnx").symlink_to(EVAL)
    os.mkfifo("pipe")  # rather than /dev/null, which root would lose if this failed
    for name in ("dangling.onnx", "link.onnx", "pipe"):
        message = refused(2, "quantize", MODEL, *DATA, option, name, "--force")
        assert f"'{name}' is a link or a device; give the name of a plain file" in message


def test_one_name_for_model_and_report(refused):
    message = refused(2, "quantize", MODEL, *DATA, "-o", "x", "--json", "./x")
    assert message == "error: 'x' is to be the model and the report; give two names"


def test_a_report_that_exists(refused, work):
    (work / "r.json").write_text("precious")
    message = refused(2, "quantize", MODEL, *DATA, "--json", "r.json")
    assert "'r.json' exists; give --force" in message


def test_a_folder_that_cannot_be_written(refused, monkeypatch):
    def mkdtemp(**_):
        raise PermissionError(13, "Permission denied")

    # root may write everywhere, so that taking the permission away would test nothing there
    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    message = refused(2, "quantize", MODEL, *DATA)
    assert message == "error: cannot write to '.': Permission denied; choose another place with -o"


# -- statistics -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def statistics(digits, tmp_path_factory):
    """The bytes of a file of statistics."""
    path = tmp_path_factory.mktemp("stats") / "s.npz"
    few = ("--calib-data", digits.calibration, "--samples", 8)
    assert ptq("calibrate", digits.model, *few, "-o", path).code == 0
    return path.read_bytes()


@pytest.fixture
def stats(work, statistics):
    (work / "s.npz").write_bytes(statistics)
    return "s.npz"


def test_statistics_of_another_model(refused, work, stats):
    model = onnx.load(MODEL)
    model.doc_string = "another"
    onnx.save(model, "other.onnx")
    message = refused(1, "quantize", "other.onnx", "--stats", stats)
    assert message == (
        "error: 's.npz' holds statistics of another model than 'other.onnx'; "
        "run `ptq calibrate` again"
    )


def test_statistics_of_other_data(refused, stats):
    message = refused(1, "quantize", MODEL, "--stats", stats, "--calib-data", CALIB)
    assert "'s.npz' holds statistics of other data than 'digits_calib.npz'" in message
    assert "leave out --calib-data" in message


def test_statistics_of_another_version(refused, stats, monkeypatch):
    monkeypatch.setattr("ptq.calibration.__version__", "9.9.9")
    message = refused(1, "quantize", MODEL, "--stats", stats)
    assert "was made by ptq 0.1.0, this is 9.9.9; run `ptq calibrate` again" in message


def test_statistics_of_fewer_operators(refused, work):
    ptq("calibrate", MODEL, *DATA, "--op-types", "Gemm", "-o", "gemm.npz")
    message = refused(1, "quantize", MODEL, "--stats", "gemm.npz")
    assert "'gemm.npz' lacks tensor" in message
    assert "the same --target, --op-types and --exclude" in message


@pytest.mark.parametrize("name", ["nope.npz", CALIB, MODEL])
def test_files_that_hold_no_statistics(refused, name):
    message = refused(1, "quantize", MODEL, "--stats", name)
    assert f"'{name}'" in message
    assert "ptq calibrate" in message


def test_statistics_cut_off(refused, work, stats):
    whole = (work / stats).read_bytes()
    for kept in (10, len(whole) // 2, len(whole) - 5):
        (work / "cut.npz").write_bytes(whole[:kept])
        assert "'cut.npz'" in refused(1, "quantize", MODEL, "--stats", "cut.npz")


def test_an_output_search_without_data(refused, stats):
    message = refused(
        2, "quantize", MODEL, "--stats", stats, "--calib", "qcode", "--qcode-objective", "output"
    )
    assert message == ("error: --qcode-objective output runs the network; give --calib-data")


def test_calibrating_without_data(refused):
    message = refused(2, "calibrate", MODEL, "-o", "s.npz")
    assert "calibrating needs data; give one of: " in message


def test_calibrating_needs_an_output(refused):
    assert "'-o' / '--output'" in refused(2, "calibrate", MODEL, *DATA)


def test_merging_statistics_of_another_model(refused, work, stats):
    model = onnx.load(MODEL)
    model.doc_string = "another"
    onnx.save(model, "other.onnx")
    message = refused(1, "calibrate", "other.onnx", *DATA, "--merge", stats, "-o", "m.npz")
    assert "'s.npz' holds statistics of another model" in message


@pytest.mark.parametrize("option", [("--ema-decay", 0.5), ("--sample-size", 100)], ids=str)
def test_merging_statistics_of_other_settings(refused, stats, option):
    message = refused(1, "calibrate", MODEL, *DATA, *option, "--merge", stats, "-o", "m.npz")
    assert "statistics differ in" in message


def test_merging_statistics_of_other_tensors(refused, stats):
    message = refused(
        1, "calibrate", MODEL, *DATA, "--op-types", "Gemm", "--merge", stats, "-o", "m.npz"
    )
    assert "statistics " in message
    assert "cannot be merged" in message
