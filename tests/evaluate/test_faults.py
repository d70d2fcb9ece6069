"""Which layers are named for a figure that was missed."""

import msgspec

from ptq.evaluate.faults import advice, float_layers, grown_layers, layer_errors, worst_layers
from ptq.report.comparison import Comparison, LayerError
from ptq.runtime.layer import Layer


def layer(name, alone=None, accumulated=None, measured=True, clip=None, node=None):
    return LayerError(
        tensor=f"{name}_out",
        node=name if node is None else node,
        op_type="Conv",
        quantized=True,
        sqnr_db=accumulated,
        cosine=1.0,
        max_abs=0.0,
        mean_shift=0.0,
        rms=1.0,
        clip_share=clip,
        isolated_sqnr_db=alone,
        isolated_cosine=0.9 if measured else None,
        at_fault=tuple(filter(None, [name if node is None else node])),
    )


def comparison(*layers):
    return Comparison(reference="f", quantized="q", samples=8, isolated=True, layers=tuple(layers))


def test_the_worst_layers_are_those_of_the_largest_error_by_themselves():
    found = comparison(
        layer("a", 30.0, 3.0), layer("b", 10.0, 1.0), layer("c", None, 1.0), layer("d", 20.0, 0.0)
    )
    assert [fault.node for fault in worst_layers(found)] == ["b", "d", "a"]
    assert worst_layers(found)[0].why == "10.0 dB by itself"


def test_without_any_measured_alone_the_accumulated_error_counts():
    found = comparison(
        layer("a", accumulated=9.0, measured=False), layer("b", accumulated=5.0, measured=False)
    )
    assert [(f.node, f.why) for f in worst_layers(found)] == [
        ("b", "5.0 dB accumulated"),
        ("a", "9.0 dB accumulated"),
    ]


def test_clipping_is_named_where_there_is_any_to_speak_of():
    found = comparison(layer("a", 9.0, clip=0.05), layer("b", 10.0, clip=0.0001))
    assert [fault.why for fault in worst_layers(found)] == [
        "9.0 dB by itself; clips 5.0% of its values",
        "10.0 dB by itself",
    ]


def test_what_grew_most_is_the_power_of_the_error():
    was = {"a_out": 70.0, "b_out": 40.0, "c_out": 20.0, "d_out": None, "e_out": 20.0}
    found = comparison(
        layer("a", 30.0), layer("b", 10.0), layer("c", 19.5), layer("d", 50.0), layer("new", 1.0),
        layer("e", 25.0),
    )  # fmt: skip
    faults = grown_layers(found, was)
    assert [fault.node for fault in faults] == ["b", "a", "d"]
    assert faults[0].why == "10.0 dB by itself, was 40.0 dB"
    assert faults[2].why == "50.0 dB by itself, was exact"


def test_the_same_errors_have_not_grown():
    found = comparison(layer("a", 30.0), layer("b", None))
    assert grown_layers(found, layer_errors(found)) == ()


def test_advice_excludes_the_worst_nodes_in_a_form_that_a_shell_can_be_given():
    found = comparison(layer("a[0]", 1.0), layer("b c", 2.0), layer("input", 0.5, node=""))
    assert advice(worst_layers(found)) == (
        "quantize again with the worst layers in float: --exclude 'a[[]0]' --exclude 'b c'"
    )
    assert advice(()) == ""


def test_advice_is_to_exclude_what_is_at_fault_for_the_error():
    reader = msgspec.structs.replace(layer("a", 1.0), at_fault=("b", "c"))
    assert advice(worst_layers(comparison(reader, layer("c", 2.0)))) == (
        "quantize again with the worst layers in float: --exclude b --exclude c"
    )


def test_advice_to_layers_that_clip_is_another_method():
    found = comparison(layer("a", 1.0, clip=0.09))
    assert advice(worst_layers(found)).startswith(
        "these layers clip much of their values: try another --calib, or quantize again"
    )


def test_layers_in_float_are_named_with_the_reason():
    layers = [
        Layer(name="a", op_type="Conv", kernel="QLinearConv", integer=True),
        Layer(name="b", op_type="Relu", kernel="Conv", integer=False, why="x", part_of="a"),
        Layer(name="c", op_type="Erf", kernel="Erf", integer=False, why="no integer kernel"),
        Layer(name="d", op_type="Shape", kernel="", integer=False, why="computed once"),
    ]
    assert [(f.node, f.why) for f in float_layers(layers)] == [("c", "no integer kernel")]
