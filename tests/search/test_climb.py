"""Climbing a ladder: what is tried, on what, and when it ends; without any model."""

import math

import pytest

from ptq.config import QuantizeConfig
from ptq.search.climb import Climb, Outcome, nearest
from ptq.search.ladder import FIRST, UNCHANGED, Rung

BASE = QuantizeConfig()

MSE = Rung(name="mse", changes={"calib": "mse"})
BIAS = Rung(name="bias", changes={"bias_correct": True})
KERNELS = Rung(name="kernels", changes={"weights_symmetric": False}, kernels=True)
ONE = Rung(name="1 in float", float_layers=1, kernels=True)
TWO = Rung(name="2 in float", float_layers=2, kernels=True)
DYNAMIC = Rung(name="dynamic", scheme="dynamic", alone=True, kernels=True, last=True)


class Scripted:
    """Gives what a script says of each rung by its name; a second each unless it says."""

    def __init__(self, **outcomes):
        self.outcomes = {name.replace("_", " "): o for name, o in outcomes.items()}
        self.tried = []
        self.layers = ("a", "b", "c")

    def outcome(self, number, step):
        self.tried.append(step)
        return self.outcomes.get(step.rung.name, Outcome(1.0, merit=1.0, missed=1))

    def worst_layers(self, config, count, seconds):
        return self.layers if self.layers is None else self.layers[:count]


def climb(trying, *rungs, budget=100.0, operators=("Conv",), to_the_top=False):
    ladder = Climb(
        ladder=(FIRST, *rungs),
        budget=budget,
        operators=frozenset(operators),
        to_the_top=to_the_top,
    )
    return ladder.run(BASE, trying)


def off(merit, missed=1, **more):
    return Outcome(1.0, merit=merit, missed=missed, **more)


def test_it_ends_at_the_first_that_holds_every_limit():
    trying = Scripted(as_given=off(3.0), mse=off(2.0, missed=0))
    steps = climb(trying, MSE, BIAS)
    assert [s.rung.name for s in steps] == ["as given", "mse"]
    assert steps[-1].outcome.satisfies


def test_to_the_top_it_goes_on():
    trying = Scripted(as_given=off(3.0, missed=0))
    assert len(climb(trying, MSE, BIAS, to_the_top=True)) == 3


def test_what_helps_is_kept_and_what_does_not_is_left():
    trying = Scripted(as_given=off(3.0), mse=off(4.0), bias=off(2.0), kernels=off(1.0))
    steps = climb(trying, MSE, BIAS, KERNELS)
    assert [s.path for s in steps[2:]] == [
        ("as given", "bias"),
        ("as given", "bias", "kernels"),
    ]
    assert steps[3].config.bias_correct
    assert not steps[3].config.weights_symmetric
    assert steps[3].config.calib == BASE.calib
    assert steps[3].started == 2


def test_of_equal_ones_the_earlier_is_built_on():
    trying = Scripted(as_given=off(2.0), mse=off(2.0))
    assert climb(trying, MSE, BIAS)[2].path == ("as given", "bias")


def test_another_scheme_starts_from_what_the_user_gave_and_nothing_is_built_on_it():
    trying = Scripted(as_given=off(3.0), mse=off(2.0), dynamic=off(0.1))
    steps = climb(trying, MSE, DYNAMIC, BIAS)
    assert steps[2].path == ("dynamic",)
    assert steps[2].config == BASE.with_scheme("dynamic")
    assert steps[3].path == ("as given", "mse", "bias")


def test_size_and_speed_are_not_to_be_mended_by_other_values():
    trying = Scripted(as_given=off(3.0, beyond_repair=True))
    steps = climb(trying, MSE, KERNELS, DYNAMIC)
    assert "size and speed" in steps[1].left_out
    assert [s.rung.name for s in trying.tried] == ["as given", "kernels", "dynamic"]


def test_where_there_is_no_static_model_only_other_schemes_are_tried():
    trying = Scripted(as_given=Outcome(1.0, failed="no sites"), dynamic=off(1.0, missed=0))
    steps = climb(trying, MSE, DYNAMIC)
    assert "no static model" in steps[1].left_out
    assert [s.rung.name for s in trying.tried] == ["as given", "dynamic"]


def test_what_an_operator_is_needed_for_is_passed_over_without_it():
    dense = Rung(name="smooth", changes={"smooth": True}, needs=frozenset({"MatMul"}))
    assert len(climb(Scripted(), dense)) == 1
    assert len(climb(Scripted(), dense, operators=("Conv", "MatMul"))) == 2


def test_the_first_is_tried_whatever_the_budget_and_dear_ones_only_within_it():
    dear = Rung(name="dear", changes={"rounding": "gptq"}, cost=30.0)
    steps = climb(Scripted(), dear, MSE, budget=20.0)
    assert "takes about 31 s, and 19 s are left" in steps[1].left_out
    assert [s.rung.name for s in steps if s.outcome] == ["as given", "mse"]
    assert [bool(s.outcome) for s in climb(Scripted(), MSE, budget=0.5)] == [True, False]


def test_the_last_ones_keep_their_time():
    steps = climb(Scripted(), MSE, BIAS, DYNAMIC, budget=4.9)
    assert [s.rung.name for s in steps if s.outcome] == ["as given", "mse", "dynamic"]


def test_seconds_that_are_remembered_count_like_those_that_were_just_spent():
    trying = Scripted(as_given=Outcome(60.0, merit=1.0, missed=1))
    steps = climb(trying, MSE, budget=100.0)
    assert "takes about 120 s, and 40 s are left" in steps[1].left_out


def test_more_layers_in_float_replace_fewer_in_the_name():
    trying = Scripted(as_given=off(3.0), **{"1_in_float": off(2.0)})
    steps = climb(trying, ONE, TWO)
    assert steps[2].path == ("as given", "2 in float")
    assert [o.match for o in steps[2].config.overrides] == ["a", "b"]


@pytest.mark.parametrize(("layers", "why"), [(("a",), "no more layers"), (None, "too long")])
def test_without_as_many_layers_nothing_is_tried(layers, why):
    trying = Scripted()
    trying.layers = layers
    assert why in climb(trying, TWO)[1].left_out


def test_nearest_misses_the_fewest_limits_before_it_has_the_least_error():
    trying = Scripted(as_given=off(1.0, missed=2), mse=off(5.0), bias=off(4.0))
    assert nearest(climb(trying, MSE, BIAS)) == 2
    assert nearest(climb(Scripted(as_given=Outcome(1.0, failed="none")))) is None
    assert Outcome(1.0, failed="none").merit == math.inf


def test_if_trials_take_longer_than_was_thought_so_will_the_next():
    slow = Scripted(mse=Outcome(6.0, merit=2.0, missed=1))  # thought to take 2
    steps = climb(slow, MSE, BIAS, budget=12.9)
    assert "takes about 6 s, and 6 s are left" in steps[2].left_out
    assert climb(slow, MSE, BIAS, budget=13.0)[2].outcome is not None


def test_the_float_model_is_tried_whatever_is_left():
    steps = climb(Scripted(), MSE, UNCHANGED, budget=0.1)
    assert [s.rung.name for s in steps if s.outcome] == ["as given", "the float model"]


def test_the_last_ones_may_overrun_the_budget_by_a_tenth():
    trying = Scripted(as_given=Outcome(9.5, merit=1.0, missed=1))
    quick = Rung(name="quick", alone=True, kernels=True, last=True, cost=0.15)
    usual = Rung(name="usual", alone=True, kernels=True, cost=0.15)
    steps = climb(trying, usual, quick, budget=10.0)
    assert [s.rung.name for s in steps if s.outcome] == ["as given", "quick"]


def test_what_has_the_same_kernels_need_not_be_placed_again():
    trying = Scripted(as_given=Outcome(10.0, merit=1.0, missed=1, placing_s=8.0))
    free = Rung(name="free", changes={"bias_correct": True}, cost=0.0)
    placed = Rung(name="placed", changes={"bias_correct": True}, cost=0.0, kernels=True)
    assert climb(trying, free, budget=12.0)[1].outcome is not None
    assert "about 10 s" in climb(trying, placed, budget=12.0)[1].left_out


def test_what_does_not_go_with_the_settings_is_left_out():
    refused = Rung(name="refused", changes={"bits": 1}, scheme="weight-only", alone=True)
    steps = climb(Scripted(), refused, MSE)
    assert "--bits 1" in steps[1].left_out
    assert steps[2].outcome is not None
