"""The few lines on what became integer."""

from hypothesis import given
from hypothesis import strategies as st

from ptq.report.layers import coverage_lines
from ptq.runtime.layer import Layer, count_layers

KERNELS = ["Add", "Clip", "Conv", "Div", "Mul", "Softmax", "Sub", "Tanh", ""]


def layer(kernel: str, why: str = "", *, part_of: str = "") -> Layer:
    return Layer(name="n", op_type="Any", kernel=kernel, integer=not why, why=why, part_of=part_of)


def test_reasons_are_counted_without_their_details():
    layers = [
        layer("QLinearConv"),
        layer("QLinearConv", part_of="c"),
        layer("Add", "one operand is not quantized: 'a'"),
        layer("Add", "one operand is not quantized: 'b'"),
        layer("Tanh", "no kernel"),
        layer("", "dropped"),
    ]
    assert coverage_lines(layers, {"QLinearConv": 1}, 2, "1.2.3") == [
        "1 of 4 layers run as integer kernels in onnxruntime 1.2.3; 2 "
        "QuantizeLinear/DequantizeLinear left",
        "  integer: 1 QLinearConv",
        "  float: 2 Add (one operand is not quantized)",
        "  float: 1 Tanh (no kernel)",
    ]


def test_rare_types_and_reasons_share_a_line():
    ran = {f"Q{i}": 10 - i for i in range(8)}
    layers = [layer("Tanh", f"reason {i}") for i in range(5)]
    assert coverage_lines(layers, ran, 0, "1")[1:] == [
        "  integer: 10 Q0, 9 Q1, 8 Q2, 7 Q3, 6 Q4, 5 Q5, 7 more",
        "  float: 1 Tanh (reason 0)",
        "  float: 1 Tanh (reason 1)",
        "  float: 1 Tanh (reason 2)",
        "  float: 2 more, for 2 other reasons",
    ]


@given(
    st.lists(
        st.builds(
            layer, st.sampled_from(KERNELS), st.sampled_from(["", *"abcdef"]),
            part_of=st.sampled_from(["", "", "other"]),
        )
    )
)  # fmt: skip
def test_every_layer_is_counted_once_and_there_are_few_lines(layers):
    first, *rest = coverage_lines(layers, {}, 0, "1")
    integer, total = count_layers(layers)
    assert first.startswith(f"{integer} of {total} layers")
    assert len(rest) <= 4
    counts = [line.partition(" (")[0].removeprefix("  float: ").split(", ") for line in rest]
    told = sum(int(part.split()[0]) for line in counts for part in line if part[0].isdigit())
    assert told == total - integer
