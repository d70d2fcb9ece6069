"""Optimizers against torch, against the formulas of the papers, and their constraints."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.train.manifest import TrainedArray
from ptq.train.optimizers import OPTIMIZERS, Adam, Sgd, cosine_rate

#: More than a piece, and no multiple of one.
SIZE = 70_000


def array(name="p", shape=(SIZE,), **more):
    return TrainedArray(
        name=name, shape=shape, role="weight", site="s", gradient=f"d::{name}", **more
    )


def gradients(steps, shape, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_steps_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(1).normal(size=(7, 10_001)).astype(np.float32)
    mine, theirs = start.copy(), torch.nn.Parameter(torch.tensor(start))
    group = {"params": [theirs], "lr": 0.02 * 10, "weight_decay": 0.1}
    make = {
        "adam": lambda: torch.optim.Adam([group], foreach=False),
        "sgd": lambda: torch.optim.SGD([group], momentum=0.9, foreach=False),
    }
    their = make[name]()
    my = OPTIMIZERS[name]([array(shape=start.shape, rate=10.0, decay=0.1)])
    for gradient in gradients(20, start.shape):
        my.step({"p": mine}, {"p": gradient}, 0.02)
        theirs.grad = torch.tensor(gradient)
        their.step()
    # 20 steps of float32, each rounding a few times at 6e-8 of values up to about 10
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_adam_is_algorithm_1_of_its_paper():
    start = np.random.default_rng(2).normal(size=50)
    p, m, v = start.copy(), np.zeros(50), np.zeros(50)
    mine = start.astype(np.float32)
    adam = Adam([array(shape=(50,))])
    for t, gradient in enumerate(gradients(30, (50,)), start=1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient.astype(np.float64) ** 2
        p -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        adam.step({"p": mine}, {"p": gradient}, 0.01)
    # 30 steps of about 0.01, in float32
    np.testing.assert_allclose(mine, p, atol=1e-5)


@given(
    start=st.floats(2.0**-100, 2.0**20, width=32),
    gradient=st.floats(-(2.0**20), 2.0**20, width=32),
    rate=st.floats(1e-6, 1e3),
)
def test_a_positive_parameter_stays_positive(start, gradient, rate):
    value = np.array([start], np.float32)
    sgd = Sgd([array(shape=(1,), positive=True)])
    for _ in range(3):
        before = value.copy()
        sgd.step({"p": value}, {"p": np.array([gradient], np.float32)}, rate)
        assert value[0] > 0
        assert value[0] >= np.float32(0.5) * before[0]


def test_a_parameter_without_a_gradient_stays():
    still = TrainedArray(name="q", shape=(2,), role="bias", site="s")
    values = {"p": np.ones(2, np.float32), "q": np.ones(2, np.float32)}
    Adam([array(shape=(2,)), still]).step(values, {"p": np.ones(2, np.float32)}, 0.1)
    assert (values["q"] == 1).all()
    assert (values["p"] < 1).all()


def test_moments_continue_to_the_bit():
    steps = gradients(6, (100,))
    whole, parts = np.ones(100, np.float32), np.ones(100, np.float32)
    arrays = [array(shape=(100,))]
    adam, first = Adam(arrays), Adam(arrays)
    for gradient in steps:
        adam.step({"p": whole}, {"p": gradient}, 0.1)
    for gradient in steps[:3]:
        first.step({"p": parts}, {"p": gradient}, 0.1)
    second = Adam(arrays, first.moments, first.steps)
    for gradient in steps[3:]:
        second.step({"p": parts}, {"p": gradient}, 0.1)
    assert whole.tobytes() == parts.tobytes()


@given(steps=st.integers(1, 2000))
def test_the_rate_rises_to_1_and_falls_towards_0(steps):
    rates = [cosine_rate(step, steps) for step in range(steps)]
    top = math.ceil(steps * 0.05) - 1
    assert rates[top] == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
