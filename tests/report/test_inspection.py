"""What `ptq inspect` prints, from a value."""

from ptq.graph.describe import Value
from ptq.plan import NodePlan
from ptq.report.inspection import Inspection, inspection_text

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
