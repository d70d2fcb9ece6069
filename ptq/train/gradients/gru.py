"""The gradient of gated recurrent units.

Reference: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
Machine Translation", EMNLP 2014; the equations are those of the ONNX operator ``GRU``.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient
from ptq.train.gradients.steps import (
    Direction,
    Step,
    check,
    directions,
    product,
    stacked,
    states_of,
    summed,
)
from ptq.train.tape import Tape

Grads = Sequence["ir.Value | None"]


@gradient("GRU")
def gru(at: Backward) -> Grads:
    """``h' = (1 - z) n + z h``, with gates ``z`` and ``r``, and ``n`` from the input and ``r``."""
    check(at, ["sigmoid", "tanh"])
    states = states_of(at)
    ways = [_through(at, way, states) for way in directions(at)]
    by_x, *others = zip(*ways, strict=True)
    by_w, by_r, by_b, by_first = (stacked(at, parts) for parts in others)
    return summed(at, by_x), by_w, by_r, by_b, None, by_first


def _through(at: Backward, way: Direction, states: ir.Value) -> tuple[ir.Value, ...]:
    """Return the gradients of x, W, R, B and of the first state in one direction."""
    op, x = at.op, at.x(0)
    steps, samples, _ = at.shape(x)
    n = at.shape(at.x(2))[2]
    linear = bool(at.integer("linear_before_reset", 0))
    w, r = way.own(at.x(1)), way.own(at.x(2))
    b_w, b_r = at.tape.ops("Split", way.input(3, [6 * n]), [3 * n] * 2, outputs=2, axis=0)
    b_gates, b_new = at.tape.ops("Split", b_r, [2 * n, n], outputs=2, axis=0)
    r_gates, r_new = at.tape.ops("Split", r, [2 * n, n], outputs=2, axis=0)
    before = way.before(way.own(states, 1), way.input(5, [samples, n]))

    read = op("Add", op("MatMul", x, _turned(at, w)), b_w)
    read_gates, read_new = at.tape.ops("Split", read, [2 * n, n], outputs=2, axis=2)
    kept = op("Add", op("MatMul", before, _turned(at, r_gates)), b_gates)
    gates = op("Sigmoid", op("Add", read_gates, kept))
    update, reset = at.tape.ops("Split", gates, [n, n], outputs=2, axis=2)
    factor = before if linear else op("Mul", reset, before)
    part = op("Add", op("MatMul", factor, _turned(at, r_new)), b_new)
    new = op("Tanh", op("Add", read_new, op("Mul", reset, part) if linear else part))

    to_new = op("Mul", op("Sub", 1.0, update), op("Sub", 1.0, op("Mul", new, new)))
    to_update = op("Mul", op("Sub", before, new), _slope(at, update))
    to_reset = op("Mul", part if linear else before, _slope(at, reset))
    values = [way.grad(0, [steps, samples, n]), to_new, to_update, to_reset, update, reset]
    step = _linear_step(r) if linear else _step(r_gates, r_new)
    first, by_read, by_kept = way.loops(step, [way.grad(1, [samples, n])], values, back=True)

    on_gates, on_new = at.tape.ops("Split", by_kept, [2 * n, n], outputs=2, axis=2)
    by_r = op("Concat", product(at, on_gates, before), product(at, on_new, factor), axis=0)
    by_b = op("Concat", _total(at, by_read), _total(at, by_kept), axis=0)
    return op("MatMul", by_read, w), product(at, by_read, x), by_r, by_b, first


def _linear_step(r: ir.Value) -> Step:
    """Return one step where the reset gate acts on what the state gives."""

    def step(
        t: Tape, states: list[ir.Value], values: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        grad, to_new, to_update, to_reset, update, reset = values
        total = t.op("Add", states[0], grad)
        new, up = t.op("Mul", total, to_new), t.op("Mul", total, to_update)
        re = t.op("Mul", new, to_reset)
        by_read = t.op("Concat", up, re, new, axis=1)
        by_kept = t.op("Concat", up, re, t.op("Mul", new, reset), axis=1)
        back = t.op("Add", t.op("Mul", total, update), t.op("MatMul", by_kept, r))
        return [back], [by_read, by_kept]

    return step


def _step(r_gates: ir.Value, r_new: ir.Value) -> Step:
    """Return one step where the reset gate acts on the state."""

    def step(
        t: Tape, states: list[ir.Value], values: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        grad, to_new, to_update, to_reset, update, reset = values
        total = t.op("Add", states[0], grad)
        new, up = t.op("Mul", total, to_new), t.op("Mul", total, to_update)
        by_factor = t.op("MatMul", new, r_new)
        gates = t.op("Concat", up, t.op("Mul", by_factor, to_reset), axis=1)
        back = t.op("Add", t.op("Mul", total, update), t.op("Mul", by_factor, reset))
        back = t.op("Add", back, t.op("MatMul", gates, r_gates))
        by_read = t.op("Concat", gates, new, axis=1)
        return [back], [by_read, t.op("Identity", by_read)]

    return step


def _slope(at: Backward, gate: ir.Value) -> ir.Value:
    return at.op("Mul", gate, at.op("Sub", 1.0, gate))


def _turned(at: Backward, matrix: ir.Value) -> ir.Value:
    return at.op("Transpose", matrix, perm=[1, 0])


def _total(at: Backward, values: ir.Value) -> ir.Value:
    return at.op("ReduceSum", values, [0, 1], keepdims=0)
