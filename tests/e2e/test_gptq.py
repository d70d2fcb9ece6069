"""``--rounding gptq`` from the settings to the file and the report."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import ptq
from ptq.errors import ConfigError
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.pairs import fits, orders_of
from ptq.numerics.qtype import QType
from ptq.options import RunOptions


def weights_of(path):
    """Return codes and scales of the weights, by the node that reads them."""
    graph = onnx.load(path).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    readers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    found = {n.name: made[n.input[1]].input for n in readers}
    return {name: (arrays[codes], arrays[scale]) for name, (codes, scale, _) in found.items()}


def test_codes_change_and_scales_do_not(made):
    plain = weights_of(made().output)
    result = made(rounding="gptq")
    found = weights_of(result.output)
    changed = [n for n in plain if not np.array_equal(plain[n][0], found[n][0])]
    assert len(changed) > len(plain) / 2
    for name, (codes, scale) in plain.items():
        np.testing.assert_array_equal(found[name][1], scale)
        # a code makes up for others by a step or some, not by many
        assert np.abs(found[name][0].astype(int) - codes).max() < 32
    [done] = result.report.refinements
    assert (done.step, done.layers, done.kept) == ("gptq", len(plain), True)
    assert done.after_db > done.before_db
    assert any("by gptq takes the outputs" in notice for notice in result.report.notices)


def test_outputs_get_nearer_on_held_out_data(made):
    plain = made().report.accuracy
    refined = made(rounding="gptq", bias_correct=True).report
    assert [step.step for step in refined.refinements] == ["gptq", "bias correction"]
    assert refined.accuracy.sqnr_db > plain.sqnr_db


@pytest.mark.parametrize("symmetric", [True, False])
def test_no_pair_of_codes_overflows_where_kernels_saturate(made, symmetric):
    result = made(
        rounding="gptq", target="ort-cpu-x86-avx2", weights_symmetric=symmetric, place=("all",)
    )
    [done] = result.report.refinements
    assert done.kept
    checked = 0
    for name, (codes, _) in weights_of(result.output).items():
        if codes.ndim == 4 and codes.shape[1] == 1:
            continue  # the kernel for depthwise convolutions is exact
        tensor = QTensor(codes, QParams(np.float32(1), np.int8(0), QType.parse("int8")))
        axis = 0 if codes.ndim == 4 else int(np.argmin(codes.shape) == 1)
        orders = orders_of(codes.ndim, axis, convolution=codes.ndim == 4)
        assert fits(tensor, orders), name
        checked += 1
    assert checked > 5


def test_threads_do_not_change_the_bytes(quantized):
    written = set()
    for threads in (1, 2):
        result = quantized(options=RunOptions(threads=threads, samples=16), rounding="gptq")
        assert result.report.refinements[0].kept
        written.add(result.output.read_bytes())
    assert len(written) == 1


def test_the_scheme_without_calibration_refuses_it():
    with pytest.raises(ConfigError, match="--rounding gptq means nothing to --scheme"):
        ptq.QuantizeConfig(scheme="dynamic", rounding="gptq")
    every = ptq.QuantizeConfig(scheme="auto", rounding="gptq")
    assert every.with_scheme("dynamic").rounding == "nearest"
    assert every.with_scheme("static").rounding == "gptq"
    assert every.with_scheme("weight-only").rounding == "gptq"


def test_ranges_by_outputs_come_first_and_make_them_better(quantized):
    # with a scale for each channel of 8 bits there is little to choose
    settings = {"weights": "per-tensor", "bias_correct": True}
    plain = quantized(**settings).report.accuracy
    report = quantized(**settings, weight_method="seqmse").report
    assert [step.step for step in report.refinements] == ["seqmse", "bias correction"]
    first = report.refinements[0]
    assert first.kept
    assert first.after_db > first.before_db
    assert any("choosing the ranges of" in notice for notice in report.notices)
    assert report.accuracy.sqnr_db > plain.sqnr_db - 0.5


def test_ranges_by_outputs_are_of_whole_models_and_of_data():
    with pytest.raises(ConfigError, match="--weight-method seqmse means nothing to --scheme dyn"):
        ptq.QuantizeConfig(scheme="dynamic", weight_method="seqmse")
    assert (
        not ptq.QuantizeConfig(scheme="auto", weight_method="seqmse").with_scheme("dynamic").refines
    )
    config = ptq.QuantizeConfig(overrides=(ptq.Override(match="a", weight_method="seqmse"),))
    with pytest.raises(ConfigError, match="is for a whole model; give it as --weight-method"):
        config.require_known()
