"""Weights rounded by reconstruction: from the settings to the file."""

from functools import partial

import pytest

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.train.reconstruct import Descent

#: The settings of most tests.
TWO = {"bits": 2, "weights_symmetric": False, "weight_method": "minmax", "place": ("all",)}


@pytest.fixture
def few_steps(monkeypatch):
    """Let descents be short."""
    monkeypatch.setattr("ptq.refining.Descent", partial(Descent, iterations=60))


@pytest.mark.parametrize("how", ["adaround", "brecq"])
def test_weights_of_two_bits_come_near_the_float_model(quantized, digits, few_steps, how):
    options = RunOptions(samples=32, evaluation=str(digits.evaluation))
    found = quantized(**TWO, options=options, rounding=how).report
    (step,) = found.refinements
    assert (step.step, step.kept, step.left) == (how, True, {})
    assert step.after_db > step.before_db + 3
    assert any(how in n.lower() for n in found.notices)


def test_the_same_seed_gives_the_same_file(quantized, few_steps):
    options = RunOptions(samples=12)
    files = [
        quantized(**TWO, options=options, rounding="qdrop", seed=3).output.read_bytes()
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_activations_stay_in_float_where_only_weights_are_quantized():
    with pytest.raises(ConfigError, match="qdrop"):
        ptq.QuantizeConfig(scheme="weight-only", rounding="qdrop")


@pytest.mark.parametrize("how", ["adaround", "brecq"])
def test_blocks_of_weights_are_rounded_too(quantized, few_steps, monkeypatch, how):
    monkeypatch.setattr("ptq.weight_refining.Descent", partial(Descent, iterations=60))
    options = RunOptions(samples=24)
    found = quantized(scheme="weight-only", bits=2, options=options, rounding=how).report
    (step,) = found.refinements
    assert (step.step, step.kept, step.left) == (how, True, {})
    assert step.after_db > step.before_db + 3
