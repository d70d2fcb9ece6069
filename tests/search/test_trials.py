"""How damage is measured."""

import math

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from support.models import parse
from support.nets import normal, to_bytes

from ptq.errors import DataError, VerificationError
from ptq.graph.switches import SiteSwitches, SwitchedModel
from ptq.search.trials import Damage, Trials, divergences

#: The outputs differ by 0.5 and 10 where the switch is on; the second is a hundred times larger.
TEXT = """
    g (float[2, 3] x, bool on) => (float[2, 3] a, float[2, 3] b, bool c)
    <float half = {0.5}, float ten = {10}, float hundred = {100}, float none = {0}> {
        p = Where (on, half, none) q = Where (on, ten, none) z = Mul (x, hundred)
        a = Add (x, p) b = Add (z, q) c = Identity (on) }"""


def switched(text=TEXT, outputs=("a", "b", "c")):
    site = SiteSwitches("s", "Conv", ("on",), {}, {}, None, "a")
    return SwitchedModel(to_bytes(parse(text)), (site,), outputs, None)


def feeds(count=3):
    return [{"x": normal((2, 3), seed)} for seed in range(count)]


def test_each_floating_output_counts_alike():
    trials = Trials(switched(), feeds())
    signal = sum(float(np.sum(f["x"].astype(np.float64) ** 2)) for f in feeds())
    noise = [18 * 0.5**2 / signal, 18 * 10.0**2 / (1e4 * signal)]
    # float32 sums: a part in 1e7 of values that are 20 times the difference
    assert trials.damage({"on"}).noise == pytest.approx(np.mean(noise), rel=1e-4)
    assert trials.damage(()) == Damage(noise=0.0)
    assert trials.damage(()).sqnr_db == math.inf


def test_several_threads_give_the_same_in_the_same_order():
    wanted = [(), {"on"}, (), {"on"}, {"on"}]
    one, more = (list(Trials(switched(), feeds(), threads=n)(wanted)) for n in (1, 3))
    assert one == more


@pytest.mark.parametrize("probabilities", [False, True])
def test_divergence_of_classes_is_what_scipy_says(probabilities):
    wanted, found = normal((5, 7), 1, 3.0), normal((5, 7), 2, 3.0)
    p, q = softmax(wanted.astype(np.float64), axis=-1), softmax(found.astype(np.float64), axis=-1)
    expected = rel_entr(p, q).sum(axis=-1)
    if probabilities:
        wanted, found = p.astype(np.float32), q.astype(np.float32)
    # float32 probabilities are exact to 6e-8, of which the logarithm of small ones makes more
    np.testing.assert_allclose(divergences(wanted, found), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(divergences(wanted, wanted), 0.0)


def test_a_class_that_becomes_impossible_diverges_by_a_finite_number():
    wanted, found = np.array([[0.5, 0.5]], np.float32), np.array([[1.0, 0.0]], np.float32)
    assert 10 < divergences(wanted, found)[0] < 100


def test_class_scores_have_a_divergence_and_others_none():
    text = """g (float[2, 3] x, bool on) => (float[2, 3] a) <float two = {2}, float one = {1}> {
        p = Where (on, two, one) a = Mul (x, p) }"""
    trials = Trials(switched(text, ("a",)), feeds())
    rows = np.concatenate([divergences(f["x"], 2 * f["x"]) for f in feeds()])
    assert trials.damage({"on"}).kl == pytest.approx(rows.mean(), rel=1e-6)
    assert Trials(switched(), feeds()).damage({"on"}).kl is None


def test_what_cannot_be_measured_is_said():
    with pytest.raises(DataError, match="no sample"):
        Trials(switched(), [])
    text = "g (float[2, 3] x, bool on) => (bool c) { c = Identity (on) }"
    with pytest.raises(VerificationError, match="no floating-point output"):
        Trials(switched(text, ("c",)), feeds())
    with pytest.raises(DataError, match="NaN"):
        Trials(switched(), [{"x": np.full((2, 3), np.nan, np.float32)}]).damage(())
