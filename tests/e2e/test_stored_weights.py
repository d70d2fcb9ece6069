"""Files with weights of few bits: what they compute, and what those who read them find."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from support.cli import ptq as command

import ptq
from ptq.graph.quantized import code_count, read_quantized
from ptq.graph.save import save_model
from ptq.graph.widen import widened
from ptq.options import RunOptions
from ptq.runtime.session import open_session

#: Of one bit are those layers that may have a sign for a weight: all but the first and the last.
NARROW = {
    1: {"weight_method": "bwn"},
    2: {"weight_method": "minmax", "edge_bits": 2},
    3: {"weight_method": "minmax", "edge_bits": 3},
}


def settings(bits, form):
    return ptq.QuantizeConfig(
        bits=bits, weights_symmetric=False, place=("all",), format=form, calib="minmax",
        **NARROW[bits],
    )  # fmt: skip


@pytest.fixture(scope="module")
def narrow(digits, tmp_path_factory):
    """Return the small network with weights of so many bits, as ``quantize`` returns it."""
    folder, known = tmp_path_factory.mktemp("narrow"), {}

    def quantized(bits, form="qdq"):
        if (bits, form) not in known:
            config = settings(bits, form)
            options = RunOptions(output=folder / f"{bits}{form}.onnx", samples=8, seconds=0.01)
            known[bits, form] = ptq.quantize(
                digits.model, digits.calibration, config, options=options
            )
        return known[bits, form]

    return quantized


def outputs(path, images, optimization="all"):
    [found] = open_session(path, optimization=optimization).run(None, {"input": images})
    return found


def weights_of(path):
    """Return the codes of all weights, by name."""
    constants = widened(read_quantized(path)).graph.initializers
    return {name: v.const_value.numpy() for name, v in constants.items() if "weight/q" in name}


@pytest.mark.parametrize("optimization", ["all", "disabled"])
@pytest.mark.parametrize("bits", NARROW)
def test_how_weights_are_stored_changes_no_bit_of_the_output(
    narrow, digits, tmp_path, bits, optimization
):
    path, wide = narrow(bits).output, tmp_path / "wide.onnx"
    save_model(widened(read_quantized(path)), wide)
    assert wide.stat().st_size > path.stat().st_size
    images = digits.images()[:32]
    of_both = [outputs(p, images, optimization) for p in (path, wide)]
    np.testing.assert_array_equal(*of_both)


@pytest.mark.parametrize("bits", NARROW)
def test_what_is_deployed_is_what_the_file_says(narrow, digits, bits):
    path, images = narrow(bits).output, digits.images()[:32]
    [said] = ReferenceEvaluator(onnx.load(path)).run(None, {"input": images})
    # where a float sum is next to half a step, either code is right: a few inner codes differ by
    # one, and the output by less than two of the steps that it would have with 8 bits
    step = np.ptp(said) / 255
    assert np.abs(outputs(path, images) - said).max() <= 2 * step


@pytest.mark.parametrize("bits", NARROW)
def test_layers_run_as_integer_kernels(narrow, bits):
    assert narrow(bits).report.ran_float == {}


@pytest.mark.parametrize("bits", NARROW)
def test_how_large_a_file_becomes_is_foreseen(narrow, digits, bits):
    foreseen = ptq.inspect(digits.model, settings(bits, "qdq")).predicted_bytes
    # without the recipe and whatever else depends on data: some hundred bytes of 40,000
    assert foreseen == pytest.approx(narrow(bits).output.stat().st_size, rel=0.03)


def test_both_formats_store_the_same_codes(narrow):
    in_qdq, in_integer = (weights_of(narrow(3, form).output) for form in ("qdq", "integer"))
    assert in_qdq.keys() == in_integer.keys() != set()
    for name, codes in in_qdq.items():
        np.testing.assert_array_equal(codes, in_integer[name])


def test_the_runtime_is_given_int8_codes_with_int8_zero_points(narrow):
    """ALGORITHMS trap T3: weights in uint8 run four times as slowly."""
    graph = onnx.load(narrow(2).output).graph
    types = {t.name: t.data_type for t in graph.initializer}
    zero_points = [n for n in types if n.endswith("weight/zero_point")]
    assert len(zero_points) == len(weights_of(narrow(2).output)) > 10
    assert {types[name] for name in zero_points} == {TensorProto.INT8}
    assert any(np.any(onnx.numpy_helper.to_array(t)) for t in graph.initializer
               if t.name in zero_points)  # fmt: skip
    assert {codes.dtype for codes in weights_of(narrow(2).output).values()} == {np.dtype(np.int8)}


def test_inspect_counts_the_codes_that_there_are(narrow, tmp_path):
    path, wide = narrow(3).output, tmp_path / "wide.onnx"
    save_model(widened(read_quantized(path)), wide)
    done = command("inspect", path, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["codes"] == code_count(read_quantized(wide)) > 30_000
    assert found["integer_layers"] == found["total_layers"]


def test_compare_and_check_and_recipes_read_such_files(narrow, digits):
    path = narrow(1).output
    done = command("compare", digits.model, path, "--data", digits.evaluation, "--samples", 4)
    assert done.code == 0, done.err
    assert "of 27 tensors of the float model are in the quantized one" in done.out
    data = ("--data", digits.evaluation, "--samples", 4)
    assert command("check", digits.model, path, *data, "--max-size-ratio", 1).code == 0
    extracted = command("recipe", "extract", path)
    assert 'weight-method = "bwn"' in extracted.out
