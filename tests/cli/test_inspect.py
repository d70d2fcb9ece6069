"""`ptq inspect`: what a model is made of, and the fate of every node."""

import json

import msgspec
import pytest
from support.cli import contents, ptq
from support.models import write

from ptq.report.inspection import Inspection, QuantizedInspection
from ptq.runtime.host import host_target

MODEL = "digits_cnn.onnx"

MIXED = """
g (float[N,3,8,8] image, int64[2] size) => (float[N,4] probabilities, float[N,3,8,8] twice)
<float[4,3,1,1] w>
{
  [conv] c = Conv (image, w)
  [pool] p = GlobalAveragePool (c)
  [flat] f = Flatten (p)
  [soft] probabilities = Softmax (f)
  [up] twice = Add (image, image)
}
"""


def test_it_shows_what_goes_in_and_out(work):
    write(work / "mixed.onnx", MIXED)
    done = ptq("inspect", "mixed.onnx")
    assert done.code == 0
    assert "input   image: float (N, 3, 8, 8)" in done.out
    assert "input   size: int64 (2)" in done.out
    assert "output  probabilities: float (N, 4)" in done.out
    assert "output  twice: float (N, 3, 8, 8)" in done.out


def test_it_says_of_every_node_what_becomes_of_it_and_why(work):
    write(work / "mixed.onnx", MIXED)
    lines = ptq("inspect", "mixed.onnx").out.split("\nnodes\n")[1].splitlines()
    fates = {line.split()[0]: " ".join(line.split()[2:]) for line in lines if line}
    assert fates["conv"] == "integer"
    assert fates["soft"] == "float: the integer kernel is 6 times slower than float"
    assert fates["up"] == "float: no integer operator before it"


def test_it_shows_size_opset_parameters_and_preparation(work):
    done = ptq("inspect", MODEL)
    assert done.out.startswith(f"{MODEL}: 0.15 MB, opset 13, 34,028 parameters\n")
    assert "batchnorm: 12 folded" in done.out
    assert f"26 of 26 nodes would run as integer kernels on {host_target()}; about" in done.out


def test_columns_of_words_are_flush_left(work):
    nodes = ptq("inspect", MODEL).out.split("\nnodes\n")[1].splitlines()
    conv = next(line for line in nodes if " Conv " in line)
    add = next(line for line in nodes if " Add " in line)
    assert conv.index("Conv") == add.index("Add")


def test_json_decodes_into_its_type_and_names_every_node(work):
    found = msgspec.json.decode(ptq("inspect", MODEL, "--json").out, type=Inspection, strict=True)
    assert sum(found.operators.values()) == len(found.nodes) == 26
    assert all(node.integer or node.why for node in found.nodes)
    assert len({node.name for node in found.nodes}) == 26
    assert found.size_bytes == (work / MODEL).stat().st_size


def test_json_and_text_come_from_the_same_findings(work):
    options = ("--exclude", "block1.*", "--op-types", "Conv,Gemm")
    found = json.loads(ptq("inspect", MODEL, *options, "--json").out)
    text = ptq("inspect", MODEL, *options).out
    for node in found["nodes"]:
        fate = "integer" if node["integer"] else f"float: {node['why']}"
        assert any(
            line.split(maxsplit=2) == [node["name"], node["op_type"], fate]
            for line in text.splitlines()
        )


def test_the_predicted_size_is_about_right(work):
    found = json.loads(ptq("inspect", MODEL, "--json").out)
    ptq("quantize", MODEL, "--calib-data", "digits_calib.npz", "--samples", 4, "--place", "all")
    written = (work / "digits_cnn.int8.onnx").stat().st_size
    # what a prediction from the weights alone leaves out: scales and the new nodes, half of
    # so small a file
    assert 0.6 * written < found["predicted_bytes"] < 1.1 * written


def test_inspecting_writes_nothing(work):
    before = contents(work)
    ptq("inspect", MODEL)
    ptq("inspect", MODEL, "--json")
    assert contents(work) == before


def test_a_model_with_nothing_to_quantize_can_be_inspected(work):
    write(work / "relu.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    done = ptq("inspect", "relu.onnx")
    assert done.code == 0
    assert "0 of 1 nodes would run as integer kernels" in done.out


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A quantized model, made once."""
    output = tmp_path_factory.mktemp("made") / "net.onnx"
    data = ("--calib-data", digits.calibration, "--samples", 4)
    place = ("--place", "all", "--exclude", "head.*")
    assert ptq("quantize", digits.model, *data, *place, "-o", output).code == 0
    return output.read_bytes()


@pytest.fixture
def quantized(work, made):
    (work / "net.onnx").write_bytes(made)
    return "net.onnx"


def test_a_quantized_model_is_shown_as_it_runs(work, quantized):
    done = ptq("inspect", quantized)
    assert done.code == 0
    assert done.out.startswith(f"{quantized}: quantized, ")
    lines = done.out.split("\nlayers in onnxruntime")[1].splitlines()
    fates = {line.split()[0]: line.split(maxsplit=3)[1:] for line in lines if line.startswith("  ")}
    assert fates["stem.conv"] == ["Conv", "QLinearConv", "integer"]
    summary = next(line for line in lines if "layers run as integer kernels" in line)
    assert summary.endswith("QuantizeLinear/DequantizeLinear left")


def test_what_was_excluded_on_purpose_is_called_that(work, quantized):
    found = json.loads(ptq("inspect", quantized, "--json").out)
    why = {layer["name"]: layer["why"] for layer in found["layers"] if not layer["integer"]}
    excluded = {name: reason for name, reason in why.items() if name.startswith("head.")}
    assert excluded
    assert set(excluded.values()) == {"excluded by --exclude"}


def test_json_of_a_quantized_model_decodes_into_its_type_and_adds_up(work, quantized):
    out = ptq("inspect", quantized, "--json").out
    found = msgspec.json.decode(out, type=QuantizedInspection, strict=True)
    own = [layer for layer in found.layers if layer.kernel and not layer.part_of]
    assert (found.integer_layers, found.total_layers) == (sum(x.integer for x in own), len(own))
    assert all(layer.integer or layer.why for layer in found.layers)
    assert found.size_bytes == (work / quantized).stat().st_size
    assert found.codes > found.parameters


def test_inspecting_a_quantized_model_writes_nothing(work, quantized):
    before = contents(work)
    ptq("inspect", quantized)
    assert contents(work) == before


def test_packed_weights_count_as_the_numbers_they_are(work):
    header = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
    text = """g (float[2, 32] x) => (float[2, 8] y) <uint8[8, 1, 16] w, float[8] s> {
        [site] y = com.microsoft.MatMulNBits <K = 32, N = 8, bits = 4, block_size = 32> (x, w, s)
    }"""
    write(work / "nbits.onnx", header + text)
    found = json.loads(ptq("inspect", "nbits.onnx", "--json").out)
    assert found["codes"] == 32 * 8
    assert [layer["kernel"] for layer in found["layers"]] == ["MatMulNBits"]


def test_quantizing_a_quantized_model_stays_refused(work, quantized):
    for options in ((), ("--dry-run",)):
        done = ptq("quantize", quantized, "--calib-data", "digits_calib.npz", *options)
        assert "the model is quantized already" in done.message


def test_another_refused_model_is_refused_with_its_reason(work):
    half = "g (float16[4, 4] x) => (float16[4, 4] y) <float16[4, 4] w> { y = MatMul (x, w) }"
    write(work / "half.onnx", half)
    assert "the model is float16" in ptq("inspect", "half.onnx").message
