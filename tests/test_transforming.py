"""Equalizing on request: the function stays, the error falls, and comparing is told of it."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from support.models import write

import ptq
from ptq.data import open_dataset
from ptq.errors import ConfigError, ModelError
from ptq.graph.rescale.record import PROPERTY, Rescaling, read_rescaling
from ptq.graph.save import to_bytes
from ptq.inputs import Inputs
from ptq.options import RunOptions
from ptq.progress import Stages
from ptq.rescaling import at_strength, equalizing_factors
from ptq.source import open_source
from ptq.transforming import transformed

EQUALIZED = ptq.QuantizeConfig(equalize=True, weights="per-tensor", target="ort-cpu-x86-avx2")

#: Largest difference of an output, relative to its largest value: each of some ten layers rounds
#: its weights once more (2^-24), and adds some hundred products of them.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def source(digits):
    return open_source(digits.model)


@pytest.fixture(scope="module")
def inputs(digits, source):
    return Inputs(open_dataset(digits.calibration, source.inputs, samples=24))


def outputs(source, images):
    session = ort.InferenceSession(to_bytes(source.model), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_on_the_data_that_was_seen_the_function_stays(source, inputs, strength):
    factors = equalizing_factors(source, inputs.calibration, Stages(), threads=1)
    changed = replace(source, model=at_strength(factors, strength).apply(source.model))
    seen = np.concatenate([feed["input"] for feed in inputs.calibration])
    before, after = outputs(source, seen), outputs(changed, seen)
    np.testing.assert_allclose(after, before, atol=TOLERANCE * np.abs(before).max())
    assert to_bytes(changed.model) != to_bytes(source.model)


def test_a_channel_that_reaches_its_bound_is_left_alone(tmp_path):
    # channel 0 takes the values of the input, channel 1 a hundredth of them
    text = """
        g (float[N, 1, 2, 2] x) => (float[N, 1, 2, 2] y)
        <float[2, 1, 1, 1] w = {1, 0.01}, float[1, 2, 1, 1] v = {0.25, 4}, float zero = {0},
         float six = {6}> {
          t = Conv (x, w)
          c = Clip (t, zero, six)
          y = Conv (c, v)
        }"""
    source = open_source(write(tmp_path / "m.onnx", text))
    for top, kept in ((7.0, True), (5.6, True), (5.0, False)):
        images = np.array([0, 1, 2, top], np.float32).reshape(1, 1, 2, 2)
        np.savez(tmp_path / "d.npz", x=images)
        data = open_dataset(tmp_path / "d.npz", source.inputs)
        [factors] = equalizing_factors(source, data, Stages(), threads=1).values()
        assert (factors[0] == 1) == kept
        assert factors[1] < 1


def test_the_error_falls_and_the_report_says_what_was_done(digits, tmp_path):
    found = {}
    for equalize in (False, True):
        options = RunOptions(output=tmp_path / f"{equalize}.onnx", evaluation=digits.evaluation)
        config = ptq.QuantizeConfig(equalize=equalize, weights="per-tensor")
        found[equalize] = ptq.quantize(digits.model, digits.calibration, config, options=options)
    # 31.3 and 34.1 dB where this was written
    plain, equalized = (found[e].report for e in (False, True))
    assert equalized.accuracy.sqnr_db > plain.accuracy.sqnr_db + 1
    assert "equalized: 9 groups of tensors" in equalized.prepared
    assert not any("equalized" in line for line in plain.prepared)


def test_where_the_error_does_not_fall_nothing_is_changed(source, inputs, monkeypatch):
    errors = iter([1e-3, 2e-3, 1e-3])
    monkeypatch.setattr("ptq.transforming.Work.error", lambda *_: next(errors))
    found = transformed(source, inputs, EQUALIZED, Stages(), threads=1)
    assert found.model is source.model
    assert not found.rescaling
    assert found.prepared[-1].startswith("equalized: nothing")
    assert "(30.0 dB, 27.0 dB, 30.0 dB)" in found.prepared[-1]


def test_the_best_strength_is_taken(source, inputs, monkeypatch):
    errors = iter([3e-3, 2e-3, 1e-3])
    monkeypatch.setattr("ptq.transforming.Work.error", lambda *_: next(errors))
    found = transformed(source, inputs, EQUALIZED, Stages(), threads=1)
    factors = equalizing_factors(source, inputs.calibration, Stages(), threads=1)
    assert found.rescaling == at_strength(factors, 0.5)


def test_a_model_without_linked_layers_is_left_as_it_is(tmp_path):
    text = "g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> { y = MatMul (x, w) }"
    source = open_source(write(tmp_path / "m.onnx", text))
    np.savez(tmp_path / "d.npz", x=np.ones((3, 4), np.float32))
    given = Inputs(open_dataset(tmp_path / "d.npz", source.inputs))
    found = transformed(source, given, EQUALIZED, Stages(), threads=1)
    assert found.model is source.model
    assert found.prepared[-1] == (
        "equalized: nothing, for no layers are linked by what a scale passes through"
    )


def test_data_is_needed_and_statistics_of_the_plain_model_are_refused(source, inputs, tmp_path):
    for given in (Inputs(), replace(inputs, statistics=tmp_path / "s.npz")):
        with pytest.raises(ConfigError, match="give --calib-data, and no --stats"):
            transformed(source, given, EQUALIZED, Stages(), threads=1)


@pytest.mark.parametrize("scheme", ["dynamic", "weight-only", "auto"])
@pytest.mark.parametrize("option", ["equalize", "smooth"])
def test_other_schemes_do_neither(scheme, option):
    with pytest.raises(ConfigError, match=f"--{option} is of --scheme static"):
        ptq.QuantizeConfig(scheme=scheme, **{option: True})


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_comparing_blames_no_layer_for_being_rescaled(digits, tmp_path, form):
    options = RunOptions(output=tmp_path / "q.onnx")
    config = ptq.QuantizeConfig(equalize=True, weights="per-tensor", format=form)
    ptq.quantize(digits.model, digits.calibration, config, options=options)
    found = ptq.compare(digits.model, tmp_path / "q.onnx", digits.evaluation)
    # divided by up to 8 and more, tensors would be less than 3 dB alike
    assert all(layer.sqnr_db > 20 for layer in found.layers if layer.sqnr_db is not None)
    assert len(found.layers) > 10


def test_a_plain_model_says_nothing_and_a_damaged_property_is_named(digits, source, tmp_path):
    model = source.model.clone()
    Rescaling().write(model)
    assert PROPERTY not in model.metadata_props
    assert not read_rescaling(model)
    model.metadata_props[PROPERTY] = "{"
    with pytest.raises(ModelError, match=r"'ptq\.rescaled' cannot be read"):
        read_rescaling(model)
