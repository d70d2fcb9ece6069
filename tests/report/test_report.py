"""The report as data: JSON that decodes into the same report, and says what it must."""

import json
import math

import msgspec
import pytest

from ptq.config import QuantizeConfig
from ptq.evaluate.accuracy import Accuracy, OutputError
from ptq.evaluate.latency import Latency, Timing
from ptq.report import DataInfo, Environment, FileInfo, FloatNodes, Report, TensorInfo
from ptq.report.placement import Candidate, Placement
from ptq.report.report import Output
from ptq.runtime.layer import Layer

TENSOR = TensorInfo(
    name="x", qtype="uint8", scale=0.1, zero_point=3, lo=-0.3, hi=25.2,
    observed_min=-0.4, observed_max=30.0, clip_share=0.01,
)  # fmt: skip
DATA = DataInfo(source="a.npz", samples=3, sha256="0" * 64, synthetic=False, role="calibration")
TIMING = Timing(median_ms=1.0, p10_ms=0.9, p90_ms=1.2)
LATENCY = Latency(TIMING, TIMING, 1.0, 1.0, 1.01, 50, 1)
LAYERS = (
    Layer(name="c", op_type="Conv", kernel="QLinearConv", integer=True),
    Layer(name="r", op_type="Relu", kernel="QLinearConv", integer=True, part_of="c"),
    Layer(name="s", op_type="Softmax", kernel="Softmax", integer=False, why="slow"),
)
OUTPUTS = (
    Output(format="qdq", path="out.onnx", size_bytes=100, sha256="2" * 64),
    Output(format="integer", path="out.integer.onnx", size_bytes=90, sha256="3" * 64),
)
PLACEMENT = Placement(
    mode="auto",
    candidates=(Candidate(name="all", integer_nodes=3, predicted_ms=1.0),),
    chosen="all",
    seconds=1.5,
    cached=True,
)


def report(**changes):
    full = Report(
        environment=Environment.here(),
        input=FileInfo(path="in.onnx", size_bytes=400, sha256="1" * 64),
        output=FileInfo(path="out.onnx", size_bytes=100, sha256="2" * 64),
        config=QuantizeConfig(exclude=("a*",)),
        calibration=DATA,
        evaluation=msgspec.structs.replace(DATA, role="evaluation"),
        prepared=("batchnorm: 3 folded",),
        integer_nodes={"Conv": 3},
        float_nodes=(FloatNodes(op_type="Softmax", why="slow", names=("s",)),),
        ran_integer={"QLinearConv": 3},
        ran_float={"Softmax": 1},
        conversions=2,
        tensors=(TENSOR,),
        weights=3,
        biases=2,
        widened=("c",),
        coarse_biases=(),
        accuracy=Accuracy(3, (OutputError("y", 30.0, 0.99, 0.1),), 30.0, 0.9, None, None),
        latency=LATENCY,
        stages_s={"prepare": 0.1},
        peak_rss_bytes=10**8,
        notices=("mind",),
    )
    return msgspec.structs.replace(full, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accuracy": None, "latency": None, "evaluation": None},
        {"output": None},
        {"tensors": ()},
        {"layers": LAYERS, "outputs": OUTPUTS, "placement": PLACEMENT, "scheme": "dynamic"},
        {"latencies": (LATENCY, LATENCY)},
    ],
)
def test_json_decodes_into_the_same_report(changes):
    written = report(**changes)
    assert msgspec.json.decode(written.to_json(), type=Report) == written


def test_equal_outputs_leave_valid_json():
    exact = Accuracy(3, (OutputError("y", None, 1.0, 0.0),), None, 1.0, None, None)
    content = report(accuracy=exact).to_json()
    assert json.loads(content)["accuracy"]["sqnr_db"] is None
    assert b"Infinity" not in content
    assert b"NaN" not in content


def test_the_same_report_is_the_same_bytes():
    assert report().to_json() == report().to_json()
    assert report().to_json().endswith(b"}\n")


def test_the_schema_is_numbered_and_settings_are_complete():
    found = json.loads(report().to_json())
    assert found["schema"] == 1
    assert found["config"].keys() == set(QuantizeConfig.__struct_fields__)
    assert found["environment"].keys() >= {"ptq", "onnxruntime", "python", "machine", "cores"}


def test_the_environment_is_this_one():
    import onnxruntime

    import ptq

    here = Environment.here()
    assert (here.ptq, here.onnxruntime) == (ptq.__version__, onnxruntime.__version__)
    assert here.cores >= 1


def test_figures_survive_json_to_the_bit():
    scale = math.nextafter(0.1, 1)
    tensor = msgspec.structs.replace(TENSOR, scale=scale)
    [found] = msgspec.json.decode(report(tensors=(tensor,)).to_json(), type=Report).tensors
    assert found.scale == scale
