"""Kernels of several models side by side."""

from hypothesis import given
from hypothesis import strategies as st

from ptq.evaluate.bench import align
from ptq.runtime.profile import KernelTime


def kernel(name, op_type, ms=1.0, names=(), tensors=()):
    return KernelTime(name, op_type, ms, frozenset(names), frozenset(tensors))


def rows(layers):
    return [(layer.name, [[k.name for k in found] for found in layer.kernels]) for layer in layers]


def test_kernels_of_one_node_are_one_layer():
    floats = [kernel("y_nchwc", "Conv", 3, {"conv", "bn", "relu"}, {"c", "n", "y"})]
    codes = [kernel("conv_token_1", "QLinearConv", 2, {"conv", "y/Q"}, {"conv/float", "y"})]
    [layer] = align([floats, codes])
    assert layer.name == "conv"
    assert layer.kernels == (tuple(floats), tuple(codes))
    assert layer.ms == (3, 2)


def test_kernels_that_make_one_tensor_are_one_layer():
    layers = align(
        [
            [kernel("Conv_1", "Conv", names={"Conv:y"}, tensors={"y"})],
            [
                kernel("a", "QLinearConv", names={"a"}, tensors={"y/codes"}),
                kernel("b", "DequantizeLinear", names={"b"}, tensors={"y"}),
            ],
        ]
    )
    assert rows(layers) == [("Conv:y", [["Conv_1"], ["b"]]), ("a", [[], ["a"]])]


def test_what_one_model_merges_is_one_layer_called_after_its_first_part():
    floats = [kernel("t_nchwc", "Conv", names={"bn", "net/Conv", "add"}, tensors={"t", "s"})]
    codes = [
        kernel("net/Conv_token_4", "QLinearConv", names={"net/Conv"}, tensors={"t"}),
        kernel("add", "QLinearAdd", names={"add"}, tensors={"s"}),
    ]
    assert rows(align([floats, codes])) == [
        ("net/Conv", [["t_nchwc"], ["net/Conv_token_4", "add"]]),
    ]


def test_what_the_runtime_adds_is_one_layer_for_each_type():
    floats = [kernel("ReorderInput", "ReorderInput"), kernel("ReorderInput_2", "ReorderInput")]
    codes = [kernel("Transpose", "Transpose")]
    assert rows(align([floats, codes])) == [
        ("(ReorderInput)", [["ReorderInput", "ReorderInput_2"], []]),
        ("(Transpose)", [[], ["Transpose"]]),
    ]


def test_the_layer_of_one_model_is_called_after_the_node_of_its_type():
    [layer] = align([[kernel("y_nchwc", "Conv", names={"bn", "a/Conv", "z"}, tensors={"y"})]])
    assert layer.name == "a/Conv"


@st.composite
def profiles(draw):
    """Two models of one network: each node in some kernel of each, or in none."""
    found = []
    for model in range(2):
        owners = draw(st.lists(st.integers(0, 5), min_size=8, max_size=8))
        found.append(
            [
                kernel(
                    f"m{model}k{i}", "Conv", i + 1, {f"n{j}" for j in range(8) if owners[j] == i}
                )
                for i in range(5)
            ]
        )
    return found


@given(profiles())
def test_every_kernel_is_in_one_layer_and_no_time_is_lost(found):
    layers = align(found)
    for model, kernels in enumerate(found):
        placed = [k for layer in layers for k in layer.kernels[model]]
        assert sorted(placed, key=lambda k: k.name) == kernels
        assert sum(layer.ms[model] for layer in layers) == sum(k.ms for k in kernels)
    for node in {name for kernels in found for k in kernels for name in k.names}:
        holding = [
            layer for layer in layers if any(node in k.names for ks in layer.kernels for k in ks)
        ]
        assert len(holding) == 1
