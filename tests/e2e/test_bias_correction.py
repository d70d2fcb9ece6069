"""``--bias-correct`` from the settings to the file and the report."""

import pytest

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.runtime.weight_errors import mean_errors
from ptq.trial import Trial


def test_corrected_biases_bring_the_outputs_nearer(made):
    plain = made(bias_correct=False).report
    found = made(bias_correct=True).report
    [done] = found.refinements
    assert plain.refinements == ()
    assert done.kept
    assert done.layers == plain.biases
    assert done.after_db > done.before_db
    # on the held-out data: weights alone are a part of the error, and rounded well at 8 bits
    assert found.accuracy.sqnr_db > plain.accuracy.sqnr_db
    assert any(f"correcting {done.layers} biases" in notice for notice in found.notices)


def test_a_correction_that_does_harm_is_not_done(made, quantized, monkeypatch):
    plain = made().output.read_bytes()
    monkeypatch.setattr(
        "ptq.refining.mean_errors",
        lambda *given, **options: {n: -20 * m for n, m in mean_errors(*given, **options).items()},
    )
    result = quantized(bias_correct=True)
    [done] = result.report.refinements
    assert not done.kept
    assert done.after_db < done.before_db
    assert any("not done" in notice for notice in result.report.notices)
    assert len(result.output.read_bytes()) - len(plain) < 100  # the recipe says more


def test_a_step_is_judged_on_samples_that_it_has_not_seen(quantized, monkeypatch):
    judged_on, seen = [], []

    def trial(feeds, source):
        judged_on.extend(feeds)
        return Trial(feeds, source)

    def errors(tapped, feeds, *given, **options):
        seen.extend(feeds)
        return mean_errors(tapped, feeds, *given, **options)

    monkeypatch.setattr("ptq.work.Trial", trial)
    monkeypatch.setattr("ptq.refining.mean_errors", errors)
    [done] = quantized(options=RunOptions(samples=32), bias_correct=True).report.refinements
    assert done.samples == len(seen) == 24
    known = {feed["input"].tobytes() for feed in seen}
    others = {feed["input"].tobytes() for feed in judged_on}
    assert len(others) == 8
    assert not known & others


def test_threads_do_not_change_the_bytes(quantized):
    written = set()
    for threads in (1, 2):
        options = RunOptions(threads=threads, samples=32)
        result = quantized(options=options, bias_correct=True)
        assert result.report.refinements[0].kept
        written.add(result.output.read_bytes())
    assert len(written) == 1


def test_it_needs_samples(digits, tmp_path):
    stats = tmp_path / "stats.npz"
    ptq.calibrate(digits.model, digits.calibration, stats)
    options = RunOptions(output=tmp_path / "out.onnx", statistics=stats)
    with pytest.raises(ConfigError, match="--bias-correct runs the network; give --calib-data"):
        ptq.quantize(digits.model, None, ptq.QuantizeConfig(bias_correct=True), options=options)


def test_the_scheme_without_calibration_refuses_it():
    with pytest.raises(ConfigError, match="--bias-correct means nothing to --scheme"):
        ptq.QuantizeConfig(scheme="dynamic", bias_correct=True)
    every = ptq.QuantizeConfig(scheme="auto", bias_correct=True)
    assert not every.with_scheme("dynamic").bias_correct
    assert every.with_scheme("static").bias_correct
    assert every.with_scheme("weight-only").bias_correct
