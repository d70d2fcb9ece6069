"""Activations of fewer than 8 bits in the static scheme: from the settings to the file."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from support.cli import ptq as command

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.report.text import result_table
from ptq.runtime.session import open_session

#: The settings of most tests.
FOUR = {
    "bits": 4, "activation_bits": 4, "weights_symmetric": False, "calib": "mse", "place": ("all",),
}  # fmt: skip

#: Enough to calibrate, and to measure on.
FEW = RunOptions(samples=8, seconds=0.01)


@pytest.fixture(scope="module")
def four(digits, tmp_path_factory):
    """The small network with W4A4, in both formats, made once."""
    output = tmp_path_factory.mktemp("four") / "four.onnx"
    options = replace(FEW, output=output, evaluation=str(digits.evaluation))
    config = ptq.QuantizeConfig(**FOUR, format="both")
    return ptq.quantize(digits.model, digits.calibration, config, options=options)


def grids(report):
    return {t.name: t.qtype for t in report.tensors}


def test_what_layers_read_is_narrow_and_what_the_ends_read_is_not(four):
    found = grids(four.report)
    assert found["input"] == "uint8"
    assert set(found.values()) == {"uint4", "uint8"}


def test_the_ends_read_as_few_bits_where_that_is_asked_for(quantized):
    found = grids(quantized(**FOUR, edge_bits=4, options=FEW).report)
    assert found["input"] == "uint4"


def test_layers_run_as_the_kernels_that_they_run_as_at_eight_bits(four, quantized):
    wide = quantized(place=("all",), options=FEW).report.ran_integer
    narrow = dict(four.report.ran_integer)
    assert narrow.pop("Clip") > 0
    assert narrow == wide


def test_both_formats_compute_the_same(four, digits):
    first, second = (
        open_session(output.path).run(None, {"input": digits.images()[:64]})
        for output in four.report.outputs
    )
    np.testing.assert_array_equal(first, second)


def test_the_network_is_still_the_same(four):
    assert 10 < four.report.accuracy.sqnr_db < 25
    assert four.report.accuracy.agreement > 0.95


def test_the_table_says_it(four):
    table = result_table(four.report)
    assert table.split()[1] == "W4A4"
    assert "activations by their bits: " in table


def test_it_is_spelled_in_recipes_as_on_the_command_line(digits, tmp_path):
    path, recipe, again = (tmp_path / n for n in ("a.onnx", "ptq.toml", "b.onnx"))
    data = ("--calib-data", digits.calibration)
    done = command("quantize", digits.model, *data, "--samples", 8, "--bits", "W4A3",
                   "--place", "all", "-o", path)  # fmt: skip
    assert done.code == 0, done.err
    config = ptq.read_recipe(path).config
    assert (config.bits, config.activation_bits, config.calib) == (4, 3, "mse")
    assert not config.weights_symmetric
    assert command("recipe", "extract", path, "-o", recipe).code == 0
    assert 'bits = "W4A3"' in recipe.read_text()
    assert "activation-bits" not in recipe.read_text()
    done = command("quantize", digits.model, *data, "--recipe", recipe, "-o", again)
    assert done.code == 0, done.err
    assert again.read_bytes() == path.read_bytes()


def test_a_method_that_is_named_is_taken(digits, tmp_path):
    path = tmp_path / "a.onnx"
    done = command("quantize", digits.model, "--calib-data", digits.calibration, "--samples", 4,
                   "--bits", "W8A6", "--calib", "kl", "--place", "all", "-o", path)  # fmt: skip
    assert done.code == 0, done.err
    assert ptq.read_recipe(path).config.calib == "kl"


# -- levels of their own -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_up(digits, tmp_path_factory):
    """The small network with W4A4 and levels of least error, in both formats, made once."""
    output = tmp_path_factory.mktemp("levels") / "levels.onnx"
    options = replace(FEW, output=output, evaluation=str(digits.evaluation))
    config = ptq.QuantizeConfig(**{**FOUR, "calib": "lloyd"}, format="both")
    return ptq.quantize(digits.model, digits.calibration, config, options=options)


def test_levels_of_least_error_keep_the_network_better_than_even_ones(looked_up, four):
    # 15.1 and 13.6 dB of 32 samples
    assert looked_up.report.accuracy.sqnr_db > four.report.accuracy.sqnr_db
    uneven = [t for t in looked_up.report.tensors if t.levels]
    assert uneven
    for tensor in uneven:
        assert (tensor.qtype, tensor.bits) == ("uint8", 4)
        assert len(tensor.levels) <= 16
        assert 0.0 in tensor.levels


def test_layers_with_levels_run_as_the_kernels_of_eight_bits(looked_up, quantized):
    wide = dict(quantized(place=("all",), options=FEW).report.ran_integer)
    found = dict(looked_up.report.ran_integer)
    assert found.pop("GatherElements") > 0
    # onnxruntime's layout with channels last does not reach over it, nor what makes vectors
    for moved in ("Transpose", "Reshape"):
        assert found.pop(moved, 0) >= wide.pop(moved, 0)
    assert found == wide


def test_only_the_levels_that_the_report_says_occur(looked_up, digits):
    levels = {t.name: np.float32(t.levels) for t in looked_up.report.tensors if t.levels}
    model = onnx.load(looked_up.output)
    name = next(n for n in levels if any(n in node.output for node in model.graph.node))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    )
    session = open_session(model.SerializeToString())
    [found] = session.run([name], {"input": digits.images()[:64]})
    assert np.abs(np.subtract.outer(np.unique(found), levels[name])).min(axis=1).max() < 1e-5
    assert 2 < np.unique(found).size <= 16


def test_both_formats_look_up_the_same(looked_up, digits):
    first, second = (
        open_session(output.path).run(None, {"input": digits.images()[:64]})
        for output in looked_up.report.outputs
    )
    np.testing.assert_array_equal(first, second)


def test_the_recipe_of_levels_makes_the_same_bytes(looked_up, digits, tmp_path):
    config = ptq.read_recipe(looked_up.output).config
    options = replace(FEW, output=tmp_path / "again.onnx")
    again = ptq.quantize(digits.model, digits.calibration, config, options=options)
    assert again.output.read_bytes() == looked_up.output.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"rounding": "brecq"},
            "--rounding brecq is for activations of even steps, and --calib lq",
        ),
        ({"fine_tune": "lsq"}, "--fine-tune is for activations of even steps, and --calib lq"),
        ({"target": "tensorrt"}, "--bits W4A4 is of onnxruntime"),
    ],
)
def test_what_needs_even_steps_is_refused(wrong, message):
    config = ptq.QuantizeConfig(**{**FOUR, "calib": "lq", **wrong})
    with pytest.raises(ConfigError, match=message):
        config.require_known()
