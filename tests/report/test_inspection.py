"""What `ptq inspect` prints, from a value."""

from ptq.graph.describe import Value
from ptq.plan import NodePlan
from ptq.report.inspection import (
    Inspection,
    QuantizedInspection,
    inspection_text,
    quantized_text,
)
from ptq.runtime.layer import Layer

FOUND = Inspection(
    path="net.onnx",
    size_bytes=2_000_000,
    opset=13,
    inputs=(Value("image", "float", ("N", 3, 8, 8)), Value("any", "int64", None)),
    outputs=(Value("scores", "float", ("N", 10)),),
    operators={"Conv": 2, "Softmax": 1},
    parameters=1234567,
    prepared=("batchnorm: 2 folded",),
    nodes=(
        NodePlan(name="c1", op_type="Conv", integer=True, weight="w1"),
        NodePlan(name="c2", op_type="Conv", integer=False, why="excluded by --exclude"),
        NodePlan(name="s", op_type="Softmax", integer=False, why="slow"),
    ),
    predicted_bytes=600_000,
    target="ort-cpu-x86-vnni",
)


def test_the_text_says_all_of_it():
    assert inspection_text(FOUND).splitlines() == [
        "net.onnx: 2.00 MB, opset 13, 1,234,567 parameters",
        "",
        "input   image: float (N, 3, 8, 8)",
        "input   any: int64 (?)",
        "output  scores: float (N, 10)",
        "",
        "prepared",
        "  batchnorm: 2 folded",
        "",
        "operators after preparation",
        "  operator  nodes  integer",
        "  Conv          2  1",
        "  Softmax       1  0",
        "",
        "nodes",
        "  c1  Conv     integer",
        "  c2  Conv     float: excluded by --exclude",
        "  s   Softmax  float: slow",
        "",
        "1 of 3 nodes would run as integer kernels on ort-cpu-x86-vnni; about 0.60 MB",
    ]


def test_the_text_on_a_quantized_model_names_every_kernel():
    found = QuantizedInspection(
        path="net.int8.onnx",
        size_bytes=600_000,
        opset=21,
        inputs=FOUND.inputs[:1],
        outputs=FOUND.outputs,
        operators={"DequantizeLinear": 9, "Conv": 2},
        parameters=1234,
        codes=567890,
        onnxruntime="1.2.3",
        layers=(
            Layer(name="c1", op_type="Conv", kernel="QLinearConv", integer=True),
            Layer(name="r", op_type="Relu", kernel="QLinearConv", integer=True, part_of="c1"),
            Layer(name="c2", op_type="Conv", kernel="FusedConv", integer=False, why="odd: 'w'"),
            Layer(
                name="k", op_type="Relu", kernel="FusedConv", integer=False, why="odd: 'w'",
                part_of="c2",
            ),
            Layer(name="f", op_type="Mul", kernel="", integer=False, why="computed once at load"),
        ),
        integer_layers=1,
        total_layers=2,
        ran_integer={"QLinearConv": 1},
        ran_float={"FusedConv": 1},
        conversions=3,
    )  # fmt: skip
    assert quantized_text(found).splitlines() == [
        "net.int8.onnx: quantized, 0.60 MB, opset 21, 567,890 integer and 1,234 float parameters",
        "",
        "input   image: float (N, 3, 8, 8)",
        "output  scores: float (N, 10)",
        "",
        "operators in the file",
        "  operator          nodes",
        "  DequantizeLinear      9",
        "  Conv                  2",
        "",
        "layers in onnxruntime 1.2.3",
        "  c1  Conv  QLinearConv  integer",
        "  r   Relu  QLinearConv  integer, part of c1",
        "  c2  Conv  FusedConv    float: odd: 'w'",
        "  k   Relu  FusedConv    float, part of c2",
        "  f   Mul   -            computed once at load",
        "",
        "1 of 2 layers run as integer kernels in onnxruntime 1.2.3; 3 "
        "QuantizeLinear/DequantizeLinear left",
        "  integer: 1 QLinearConv",
        "  float: 1 FusedConv (odd)",
    ]
