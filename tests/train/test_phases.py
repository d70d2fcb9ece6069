"""By which widths a network is trained to few bits."""

import pytest

from ptq import QuantizeConfig
from ptq.errors import ConfigError
from ptq.train.phases import Widths, shared_out, widths_of


@pytest.mark.parametrize(
    ("phases", "last", "wanted"),
    [
        ("direct", (2, 2), [(2, 2)]),
        ("two-stage", (2, 3), [(2, 8), (2, 3)]),
        ("two-stage", (2, 8), [(2, 8)]),
        ("progressive", (2, 2), [(8, 8), (4, 4), (2, 2)]),
        ("progressive", (3, 8), [(8, 8), (6, 8), (3, 8)]),
        ("progressive", (2, 4), [(8, 8), (4, 8), (2, 4)]),
        ("progressive", (8, 8), [(8, 8)]),
    ],
)
def test_widths_fall_to_those_of_the_result(phases, last, wanted):
    assert list(widths_of(phases, Widths(*last))) == wanted


@pytest.mark.parametrize(("steps", "phases"), [(300, 1), (300, 2), (100, 3), (2, 3)])
def test_all_steps_are_shared_out(steps, phases):
    shares = shared_out(steps, phases)
    assert len(shares) == phases
    assert min(shares) >= 1
    assert sum(shares) == max(steps, phases)
    assert max(shares) - min(shares) < phases


def test_phases_need_a_training_method():
    with pytest.raises(ConfigError, match="--phases progressive is of --fine-tune"):
        QuantizeConfig(bits=2, phases="progressive").require_known()


def test_every_phase_has_widths_that_the_method_knows():
    config = QuantizeConfig(bits=2, activation_bits=2, fine_tune="pact-sawb", phases="progressive")
    with pytest.raises(ConfigError, match="trains weights of 2 to 5 bits, not 8"):
        config.require_known()
