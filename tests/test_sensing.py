"""Damage of layers: against models that are really quantized, and whatever interrupts it."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.models import write

import ptq
from ptq.data import open_dataset
from ptq.errors import ConfigError
from ptq.numerics.metrics import ErrorSums
from ptq.report.sensitivity import ranked
from ptq.runtime.session import open_session, run
from ptq.sensing import SensitivityOptions, sensitivity
from ptq.source import open_source

CONFIG = ptq.QuantizeConfig(place=("all",), calib="minmax")
SAMPLES = 8

#: The switched graph computes floats in another order, to parts in 1e7; measured: 2e-5.
DECIBELS = 1e-2


def options(digits, **given):
    run_options = ptq.RunOptions(samples=32, evaluation=str(digits.evaluation))
    return SensitivityOptions(run=run_options, trial_samples=SAMPLES, **given)


@pytest.fixture(scope="module")
def found(digits):
    return sensitivity(
        digits.model, digits.calibration, CONFIG, options(digits, tensors=True, keep_float=2)
    )


def sqnr_without(digits, folder, exclude=(), overrides=()):
    """Quantize, and measure on the same samples what the written graph means."""
    output = folder / "q.onnx"
    config = msgspec.structs.replace(CONFIG, exclude=exclude, overrides=overrides)
    run_options = ptq.RunOptions(output=output, samples=32, seconds=0.01, force=True)
    ptq.quantize(digits.model, digits.calibration, config, options=run_options)
    inputs = open_source(digits.model).inputs
    reference = open_session(digits.model)
    quantized = open_session(output, optimization="disabled")
    sums = ErrorSums()
    for feed in open_dataset(digits.evaluation, inputs, samples=SAMPLES):
        pair = (run(session, feed)[0] for session in (reference, quantized))
        sums += ErrorSums.of(*pair)
    return sums.sqnr_db


def test_with_everything_quantized_it_is_the_quantized_model(digits, found, tmp_path):
    really = sqnr_without(digits, tmp_path)
    assert found.quantized.sqnr_db == pytest.approx(really, abs=DECIBELS)
    assert found.samples == SAMPLES


@pytest.mark.parametrize("layer", ["stem.conv", "block3.project.conv", "block2.depthwise.conv"])
def test_a_layer_left_in_float_is_a_layer_that_is_excluded(digits, found, tmp_path, layer):
    [part] = [p for p in found.layers if p.name == layer]
    really = sqnr_without(digits, tmp_path, exclude=(layer,))
    assert part.without.sqnr_db == pytest.approx(really, abs=DECIBELS)
    spared = 1 - 10 ** ((found.quantized.sqnr_db - part.without.sqnr_db) / 10)
    assert part.spared == pytest.approx(spared, abs=1e-9)


@pytest.mark.parametrize("layer", ["stem.conv", "head.conv", "logits"])
def test_a_layer_alone_is_the_only_one_that_is_quantized(digits, found, tmp_path, layer):
    [part] = [p for p in found.layers if p.name == layer]
    others = tuple(p.name for p in found.layers if p.name != layer)
    really = sqnr_without(digits, tmp_path, exclude=others)
    # a single layer writes no codes for others: its output stays in float
    assert part.alone.sqnr_db <= really + DECIBELS


def test_what_is_chosen_is_measured_and_the_recipe_gives_it(digits, found, tmp_path):
    kept = found.kept
    assert len(kept.nodes) == 2
    assert kept.reached
    assert kept.measured.noise < found.quantized.noise
    overrides = tuple(ptq.Override(match=node, float=True) for node in kept.nodes)
    really = sqnr_without(digits, tmp_path, overrides=overrides)
    assert kept.measured.sqnr_db == pytest.approx(really, abs=DECIBELS)
    # a choice of two is no worse than the best single one that was measured
    assert kept.measured.noise <= min(p.without.noise for p in found.layers)


def test_a_figure_is_reached_with_layers_none_of_which_is_idle(digits):
    limit = 37.0
    found = sensitivity(digits.model, digits.calibration, CONFIG, options(digits, min_sqnr=limit))
    kept = found.kept
    assert kept.reached
    assert kept.measured.sqnr_db >= limit > found.quantized.sqnr_db
    # fewer were measured, and are not enough
    again = options(digits, keep_float=len(kept.nodes) - 1)
    fewer = sensitivity(digits.model, digits.calibration, CONFIG, again).kept
    assert fewer.measured.sqnr_db < limit


def test_what_is_reached_already_needs_no_layer_and_what_cannot_be_is_said(digits):
    at_once = sensitivity(digits.model, digits.calibration, CONFIG, options(digits, min_sqnr=5.0))
    assert (at_once.kept.nodes, at_once.kept.reached) == ((), True)
    assert at_once.kept.measured == at_once.quantized
    all_float = sensitivity(
        digits.model, digits.calibration, CONFIG, options(digits, min_sqnr=500.0)
    ).kept
    assert all_float.reached == (all_float.measured.noise == 0)


def test_every_tensor_has_its_own_damage(found):
    kinds = {part.name: part.kind for part in found.tensors}
    assert kinds["input"] == "activation"
    assert kinds["stem.conv.weight"] == "weight"
    assert len(kinds) == len(found.tensors)
    by_name = {part.name: part for part in (*found.layers, *found.tensors)}
    # the parts of a layer do no more than all of it, but for what they have in common
    parts = ("input", "stem.conv.weight")
    assert max(by_name[p].alone.noise for p in parts) < 2 * by_name["stem.conv"].alone.noise


def test_order_is_by_the_figure_that_is_asked_for(found):
    assert ranked(found.layers, "order") == list(found.layers)
    noise = [p.alone.noise for p in ranked(found.layers, "alone")]
    assert noise == sorted(noise, reverse=True)
    assert [p.isolated for p in ranked(found.tensors, "isolated")] == [None] * len(found.tensors)


def test_class_scores_have_a_divergence(found):
    assert found.quantized.kl > 0
    assert all(part.alone.kl is not None for part in found.layers)


def test_an_interrupted_run_goes_on_where_it_was(digits, found, tmp_path, monkeypatch):
    from ptq.search.ledger import Ledger

    state, kept = tmp_path / "state", Ledger.add
    given = options(digits, tensors=True, keep_float=2, state=state)

    def interrupt(self, trial, damage):
        if len(state.read_bytes().splitlines()) > 10:
            raise KeyboardInterrupt
        kept(self, trial, damage)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sensitivity(digits.model, digits.calibration, CONFIG, given)
    again = sensitivity(digits.model, digits.calibration, CONFIG, given)
    assert again.resumed == 10
    assert msgspec.structs.replace(again, resumed=0) == found
    whole = sensitivity(digits.model, digits.calibration, CONFIG, given)
    assert whole.resumed == whole.trials == found.trials
    other = msgspec.structs.replace(CONFIG, calib="mse")
    with pytest.raises(ConfigError, match="other settings"):
        sensitivity(digits.model, digits.calibration, other, given)


def test_results_are_remembered_in_the_cache_folder(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("PTQ_CACHE", str(tmp_path))
    once, twice = (
        sensitivity(digits.model, digits.calibration, CONFIG, options(digits)) for _ in range(2)
    )
    assert (once.resumed, twice.resumed) == (0, once.trials)
    assert len(list((tmp_path / "sensitivity").iterdir())) == 1


def test_the_number_of_threads_changes_nothing(digits, found):
    given = options(digits, tensors=True, keep_float=2)
    given = replace(given, run=replace(given.run, threads=3))
    again = sensitivity(digits.model, digits.calibration, CONFIG, given)
    assert [p.alone for p in again.layers] == [p.alone for p in found.layers]
    assert again.kept == found.kept


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        ({"scheme": "dynamic"}, {}, "not of --scheme dynamic"),
        ({}, {"keep_float": 1, "min_sqnr": 30.0}, "exclude each other"),
        ({}, {"keep_float": 0}, "1 or more"),
        ({}, {"trial_samples": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(digits, config, given, message):
    settings = msgspec.structs.replace(CONFIG, **config)
    with pytest.raises(ConfigError, match=message):
        sensitivity(digits.model, digits.calibration, settings, SensitivityOptions(**given))


def test_of_a_node_with_the_name_of_anothers_tensor_what_the_recipe_does_is_measured(tmp_path):
    # the override of node 't' matches the node that makes tensor 't', too
    text = """g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y)
        <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v> {
        [first] t = Conv (x, w) [t] y = Conv (t, v) }"""
    model = write(tmp_path / "m.onnx", text)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "c.npz", x=rng.standard_normal((8, 4, 6, 6)).astype(np.float32))
    given = SensitivityOptions(keep_float=1)
    config = ptq.QuantizeConfig(place=("all",), calib="minmax")
    kept = sensitivity(model, tmp_path / "c.npz", config, given).kept
    assert kept.followed == (1 if kept.nodes == ("t",) else 0)
    assert (kept.measured.sqnr_db == math.inf) == (kept.nodes == ("t",))


@pytest.mark.parametrize(
    "settings", [{"rounding": "gptq"}, {"bias_correct": True}, {"tweak_norms": True}]
)
def test_weights_are_those_rounded_to_the_nearest_code(digits, settings):
    with pytest.raises(ConfigError, match="nearest code"):
        ptq.sensitivity(digits.model, str(digits.calibration), ptq.QuantizeConfig(**settings))
