"""`ptq inspect`: what a model is made of, and the fate of every node."""

import json

import msgspec
from support.cli import contents, ptq
from support.models import write

from ptq.report.inspection import Inspection
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
    ptq("quantize", MODEL, "--calib-data", "digits_calib.npz", "--samples", 4)
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
