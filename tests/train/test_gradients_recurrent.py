"""Gradients of recurrent operators against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients, run_gradients

RNG = np.random.default_rng(12)
STEPS, SAMPLES, READ, HIDDEN = 3, 2, 2, 2
GATES = {"GRU": 3, "LSTM": 4}


def _feed(op_type: str, count: int, states: int) -> dict[str, np.ndarray]:
    gates = GATES[op_type] * HIDDEN
    shapes = {
        "x": (STEPS, SAMPLES, READ),
        "w": (count, gates, READ),
        "r": (count, gates, HIDDEN),
        "b": (count, 2 * gates),
        "h": (count, SAMPLES, HIDDEN),
        "c": (count, SAMPLES, HIDDEN),
    }
    return {name: RNG.normal(size=shape) for name, shape in list(shapes.items())[: 4 + states]}


@pytest.mark.parametrize("linear", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_gru(direction: str, linear: int) -> None:
    form = {"direction": direction, "hidden_size": HIDDEN, "linear_before_reset": linear}

    def forward(t, x, w, r, b, h):  # type: ignore[no-untyped-def]
        return t.ops("GRU", x, w, r, b, None, h, outputs=2, **form)

    check_gradients(forward, _feed("GRU", 1 + (direction == "bidirectional"), 1))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm(direction: str) -> None:
    form = {"direction": direction, "hidden_size": HIDDEN}

    def forward(t, *x):  # type: ignore[no-untyped-def]
        return t.ops("LSTM", *x[:4], None, *x[4:], outputs=3, **form)

    check_gradients(forward, _feed("LSTM", 1 + (direction == "bidirectional"), 2))


@pytest.mark.parametrize("op_type", GATES)
def test_without_bias_first_states_and_with_the_last_state_alone_read(op_type: str) -> None:
    feed = {n: a for n, a in _feed(op_type, 1, 0).items() if n != "b"}

    def forward(t, x, w, r):  # type: ignore[no-untyped-def]
        return t.ops(op_type, x, w, r, outputs=2, hidden_size=HIDDEN)[1]

    check_gradients(forward, feed)


@pytest.mark.parametrize(
    ("form", "reason"),
    [({"clip": 3.0}, "clips"), ({"layout": 1}, "samples"), ({"input_forget": 1}, "coupled")],
)
def test_other_forms_are_refused(form: dict[str, float], reason: str) -> None:
    feed = {n: a for n, a in _feed("LSTM", 1, 0).items() if n != "b"}
    found = Differentiated(
        lambda t, *x: t.ops("LSTM", *x, outputs=1, hidden_size=HIDDEN, **form)[0], feed
    )
    assert {f.value for f in found.frozen} == {"x", "w", "r"}
    assert all(reason in f.reason for f in found.frozen)


def test_a_loop_is_taken_back_when_something_before_it_is_refused() -> None:
    feed = {n: a for n, a in _feed("GRU", 1, 0).items() if n != "b"}

    def forward(t, x, w, r):  # type: ignore[no-untyped-def]
        refused = t.op("Dropout", t.op("Dropout", x, 0.0, np.array(True)), 0.0)
        return t.ops("GRU", refused, w, t.op("Neg", r), outputs=1, hidden_size=HIDDEN)[0]

    found = Differentiated(forward, feed)
    assert [f.value for f in found.frozen] == ["x"]
    assert set(found.of) == {"w", "r"}


@pytest.mark.parametrize("op_type", GATES)
def test_states_that_are_hidden_are_computed_again(op_type: str) -> None:
    feed = {n: a.astype(np.float32) for n, a in _feed(op_type, 1, 0).items()}

    def forward(t, *x, hidden):  # type: ignore[no-untyped-def]
        every, last = t.ops(op_type, *x, outputs=2, hidden_size=HIDDEN)
        every.name = "" if hidden else every.name
        return last

    shown = run_gradients(lambda t, *x: forward(t, *x, hidden=False), feed)
    again = run_gradients(lambda t, *x: forward(t, *x, hidden=True), feed)
    for name, gradient in shown.items():
        np.testing.assert_array_equal(again[name], gradient)
