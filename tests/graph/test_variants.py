"""Other forms of the same convolution: folded stems, and weights with zero point 1."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import load
from support.nets import to_bytes

from ptq.config import QuantizeConfig
from ptq.data import open_dataset
from ptq.graph.open_stem import open_stems, stems
from ptq.graph.shift_weights import shift_weights, wide_convolutions
from ptq.inputs import Inputs
from ptq.progress import Stages
from ptq.runtime.session import open_session
from ptq.source import open_source
from ptq.work import Work

CONV = """
g (uint8[N,{channels},{side},{side}] x) => (uint8[N,M,H,W] y)
<float xs = {{0.02}}, uint8 xz = {{7}}, float ys = {{0.5}}, uint8 yz = {{100}},
 int8[{outputs},{channels},{size},{size}] w, float[{outputs}] ws, int8[{outputs}] wz>
{{
  xd = DequantizeLinear (x, xs, xz)
  wd = DequantizeLinear <axis = 0> (w, ws, wz)
  [conv] c = Conv <strides = [{stride},{stride}], pads = [{pads}]> (xd, wd)
  y = QuantizeLinear (c, ys, yz)
}}
"""


def quantized(size, pads, *, channels=3, stride=2, seed=0):
    outputs, side = 16, 12
    rng = np.random.default_rng(seed)
    weights = {
        # small enough for kernels that add pairs of products in 16 bits
        "w": rng.integers(-60, 61, (outputs, channels, size, size)).astype(np.int8),
        "ws": rng.uniform(0.01, 0.02, outputs).astype(np.float32),
        "wz": np.zeros(outputs, np.int8),
    }
    text = CONV.format(
        size=size, pads=",".join(map(str, pads)), channels=channels, stride=stride, side=side,
        outputs=outputs,
    )  # fmt: skip
    return load(text, weights)


def run(model, x, level="all"):
    return open_session(to_bytes(model), optimization=level).run(None, {"x": x})[0]


def image(model, seed=0):
    shape = [2, *model.graph.inputs[0].shape[1:]]
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


PADS = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@given(size=st.integers(1, 7), pads=PADS, seed=st.integers(0, 99))
def test_a_folded_stem_computes_the_same_codes(size, pads, seed):
    model, folded = (quantized(size, pads, seed=seed) for _ in range(2))
    opened = open_stems(folded, ["conv"])
    x = image(model, seed)
    np.testing.assert_array_equal(run(folded, x), run(model, x))
    types = [node.op_type for node in folded.graph]
    assert types.count("SpaceToDepth") == opened


@pytest.mark.parametrize(
    ("size", "pads"), [(3, (1, 1, 1, 1)), (3, (0, 0, 1, 1)), (7, (3, 3, 3, 3)), (2, (0, 0, 0, 0))]
)
def test_the_usual_stems_are_folded(size, pads):
    assert open_stems(quantized(size, pads), ["conv"]) == 1


def float_conv(**attributes):
    shape = attributes.pop("shape", "1,3,12,12")
    weight = attributes.pop("weight", "16,3,3,3")
    given = {"strides": "[2,2]", **attributes}
    listed = ", ".join(f"{name} = {value}" for name, value in given.items())
    return load(
        f"g (float[{shape}] x) => (float[N,M,H,W] y) <float[{weight}] w>"
        f"{{ [conv] y = Conv <{listed}> (x, w) }}"
    )


def test_a_stem_has_few_channels_stride_2_and_an_image_of_even_sides():
    assert stems(float_conv()) == ("conv",)
    assert not stems(float_conv(strides="[1,1]"))
    assert not stems(float_conv(dilations="[2,2]"))
    assert not stems(float_conv(auto_pad='"SAME_UPPER"'))
    assert not stems(float_conv(shape="1,3,13,12"))
    assert not stems(float_conv(shape="1,3,H,12"))
    assert not stems(float_conv(shape="1,4,12,12", weight="16,4,3,3"))
    assert not stems(float_conv(shape="1,3,12,12", weight="18,1,3,3", group="3"))


def test_a_convolution_whose_weight_another_one_reads_is_left():
    model = load(
        """
        g (uint8[1,3,8,8] x, uint8[1,3,8,8] z) => (float[N,M,H,W] y)
        <float s = {0.1}, uint8 o = {0}, int8[16,3,2,2] w>
        {
          xd = DequantizeLinear (x, s, o)
          zd = DequantizeLinear (z, s, o)
          wd = DequantizeLinear (w, s)
          [one] a = Conv <strides = [2,2]> (xd, wd)
          [two] b = Conv <strides = [2,2]> (zd, wd)
          y = Add (a, b)
        }
        """
    )
    assert open_stems(model, ["one", "two"]) == 0


def test_shifted_weights_compute_the_same_codes():
    for seed in range(5):
        model, shifted = (
            quantized(3, (1,) * 4, channels=32, stride=1, seed=seed) for _ in range(2)
        )
        assert shift_weights(shifted, ["conv"]) == 1
        zero_point = shifted.graph.initializers["wz"].const_value.numpy()
        assert set(zero_point.tolist()) == {1}
        x = image(model, seed)
        np.testing.assert_array_equal(run(shifted, x), run(model, x))
        assert shift_weights(shifted, ["conv"]) == 0, "once is enough"


def test_the_largest_code_loses_one_step_and_no_other_changes():
    model = quantized(1, (0,) * 4)
    weight = model.graph.initializers["w"]
    codes = np.resize(np.arange(-127, 128), weight.shape.numpy()).astype(np.int8)
    weight.const_value = ir.tensor(codes, name="w")
    shift_weights(model, ["conv"])
    shifted = model.graph.initializers["w"].const_value.numpy().astype(int) - 1
    np.testing.assert_array_equal(shifted, np.minimum(codes, 126))


def test_only_wide_dense_convolutions_are_worth_shifting():
    wide = {"shape": "1,32,12,12", "weight": "16,32,3,3"}
    assert wide_convolutions(float_conv(**wide)) == ("conv",)
    assert not wide_convolutions(float_conv(shape="1,32,12,12", weight="16,32,1,1"))
    assert not wide_convolutions(float_conv(shape="1,64,12,12", weight="16,32,3,3", group="2"))


def test_both_forms_compute_what_they_say_in_float():
    for change, names in ((open_stems, ["conv"]), (shift_weights, ["conv"])):
        model = quantized(3, (1,) * 4)
        change(model, names)
        x = image(model)
        np.testing.assert_allclose(
            run(model, x).astype(int), run(model, x, "disabled").astype(int), atol=1
        )


@pytest.mark.parametrize("bits", [8, 4])
def test_a_model_is_written_with_its_variants(tmp_path, bits):
    text = """
    g (float[N,3,12,12] x) => (float[N,16,M,M] y) <float[32,3,3,3] w, float[16,32,3,3] v>
    { [one] a = Conv <strides = [2,2]> (x, w) b = Relu (a) [two] y = Conv (b, v) }
    """
    path = tmp_path / "model.onnx"
    path.write_bytes(to_bytes(load(text)))
    data = np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    source = open_source(path)
    inputs = Inputs(open_dataset(str(tmp_path / "data.npz"), source.inputs))
    config = QuantizeConfig(target="ort-cpu-x86-vnni", activation_bits=bits, edge_bits=bits)
    work = Work(source, inputs, config, Stages(), threads=1)
    assert work.variants() == {"one": "stem", "two": "shift"}
    found = []
    for variants in ({}, work.variants()):
        version = work.write(tmp_path / "out.onnx", "qdq", {}, variants)
        assert not version.coverage.unfused
        model = ir.load(tmp_path / "out.onnx")
        types = [node.op_type for node in model.graph]
        assert types.count("SpaceToDepth") == len(variants) / 2
        # as float, because kernels of some machines saturate
        found.append(run_float(model, data))
    np.testing.assert_allclose(found[0], found[1], atol=np.ptp(found[0]) / 100)
    other = QuantizeConfig(target="ort-cpu-x86-avx2")
    assert not Work(source, inputs, other, Stages(), threads=1).variants(), "kernels saturate"


def run_float(model, x):
    return open_session(to_bytes(model), optimization="disabled").run(None, {"x": x})[0]
