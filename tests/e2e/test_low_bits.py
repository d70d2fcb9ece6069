"""Weights of fewer than 8 bits in the static scheme: from the settings to the file."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.cli import ptq as command

import ptq
from ptq.options import RunOptions
from ptq.report.text import result_table
from ptq.runtime.session import open_session

#: The settings of most tests.
FOUR = {"bits": 4, "weights_symmetric": False, "place": ("all",)}

#: Enough to calibrate, and to measure on.
FEW = RunOptions(samples=16, seconds=0.01)


def stored(path):
    """Return the type of the constant that each weight is stored in, by name."""
    graph = onnx.load(path).graph
    return {
        t.name.removesuffix("/quantized"): t.data_type
        for t in graph.initializer
        if t.name.endswith("/quantized") and ".weight" in t.name
    }


def outputs(path, images):
    [found] = open_session(path).run(None, {"input": images})
    return found


@pytest.mark.parametrize(("bits", "method"), [(4, ""), (1, "bwn")])
def test_the_size_is_foreseen(quantized, digits, bits, method):
    settings = {**FOUR, "bits": bits, "weight_method": method}
    written = quantized(**settings, options=FEW).report.output.size_bytes
    foreseen = ptq.inspect(digits.model, ptq.QuantizeConfig(**settings)).predicted_bytes
    assert 0.96 * written < foreseen < 1.01 * written  # the recipe in the file is not foreseen


def test_layers_run_as_integer_kernels_at_odd_widths_too(quantized):
    wide = quantized(place=("all",), options=FEW).report
    narrow = quantized(**{**FOUR, "bits": 3}, options=FEW).report
    assert narrow.ran_integer == wide.ran_integer
    assert narrow.output.size_bytes < wide.output.size_bytes
    assert set(narrow.weight_bits) == {8, 3}


def test_both_formats_compute_the_same(quantized, digits):
    held = (ptq.Override(match="head.conv", bits=3),)  # in planes, the others as INT4
    images = digits.images()[:64]
    found = [
        outputs(quantized(**FOUR, format=form, overrides=held, options=FEW).output, images)
        for form in ("qdq", "integer")
    ]
    np.testing.assert_array_equal(*found)


def test_weights_are_stored_in_four_bits_but_for_the_ends(quantized):
    output = quantized(**FOUR, options=FEW).output
    types = stored(output)
    assert types["stem.conv.weight"] == types["classifier.weight"] == TensorProto.INT8
    # the others are computed of constants of 4 bits, but for one that is too small
    four = [t for t in onnx.load(output).graph.initializer if t.data_type == TensorProto.INT4]
    codes = stored(quantized(place=("all",), options=FEW).output)
    assert len(four) == len(codes) - len(types) > 5


def test_the_ends_have_as_few_bits_where_that_is_asked_for(quantized):
    assert set(quantized(**FOUR, edge_bits=4, options=FEW).report.weight_bits) == {4}
    assert set(quantized(**FOUR, edge_bits=6, options=FEW).report.weight_bits) == {6, 4}


def test_an_override_has_the_last_word_on_width(quantized):
    overrides = (ptq.Override(match="stem.conv", bits=5), ptq.Override(match="head.conv", bits=8))
    found = quantized(**FOUR, overrides=overrides, options=FEW).report
    codes = found.weight_bits
    assert set(codes) == {8, 5, 4}
    assert result_table(found).split()[1] == "mixed"


def test_the_table_says_what_the_columns_are(quantized):
    report = quantized(**FOUR, options=FEW).report
    assert result_table(report).split()[1] == "W4A8"
    assert "weights have 4." in result_table(report)
    assert "an entropy coder would need" in result_table(report)


def test_what_a_coder_could_spare_is_said_of_few_bits_only(quantized):
    assert quantized(place=("all",), options=FEW).report.weight_coding is None
    pruned = {"weight_method": "kmeans:prune=0.5", "edge_bits": 4}
    report = quantized(**FOUR, **pruned, options=FEW).report
    coding = report.weight_coding
    assert coding.weights == sum(report.weight_bits.values())
    # A channel of 9 weights has 4 of them pruned; one symbol of half the weights takes a bit off.
    assert 0.4 < coding.zeros / coding.weights < 0.6
    assert coding.entropy_bits < 3
    assert ptq.Report.from_json(report.to_json(), "").weight_coding == coding


def test_other_runtimes_get_the_codes_in_int8(quantized):
    result = quantized(bits=4, target="tensorrt", options=FEW)
    assert set(stored(result.output).values()) == {TensorProto.INT8}
    assert set(result.report.weight_bits) == {8, 4}


def test_codes_of_few_bits_are_refined_too(digits, quantized):
    options = RunOptions(samples=32, evaluation=str(digits.evaluation))
    plain = quantized(**FOUR, options=options).report.accuracy
    refined = quantized(**FOUR, options=options, rounding="gptq").report
    assert [step.kept for step in refined.refinements] == [True]
    assert refined.accuracy.sqnr_db > plain.sqnr_db + 2


def test_the_spelling_of_papers_means_asymmetric_weights(digits, tmp_path):
    path = tmp_path / "w4a8.onnx"
    done = command("quantize", digits.model, "--calib-data", digits.calibration, "--samples", 8,
                   "--bits", "W4A8", "-o", path)  # fmt: skip
    assert done.code == 0, done.err
    config = ptq.read_recipe(path).config
    assert (config.bits, config.weights_symmetric) == (4, False)


@pytest.mark.parametrize("bits", ["W4A16", "W4A1", "four"])
def test_widths_that_are_none(digits, bits):
    done = command("quantize", digits.model, "--calib-data", digits.calibration, "--bits", bits)
    assert done.code == 2
    assert bits in done.message
