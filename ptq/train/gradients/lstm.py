"""The gradient of long short-term memory.

Reference: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; the
equations are those of the ONNX operator ``LSTM``, without peepholes.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
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


@gradient("LSTM")
def lstm(at: Backward) -> Grads:
    """``c' = f c + i g``, ``h' = o tanh(c')``, with gates ``i``, ``o`` and ``f``."""
    check(at, ["sigmoid", "tanh", "tanh"])
    if at.given(7) is not None:
        raise NoGradientError("it has peepholes")
    if at.integer("input_forget", 0):
        raise NoGradientError("its input and forget gates are coupled")
    states = states_of(at)
    ways = [_through(at, way, states) for way in directions(at)]
    by_x, *others = zip(*ways, strict=True)
    by_w, by_r, by_b, by_first, by_cell = (stacked(at, parts) for parts in others)
    return summed(at, by_x), by_w, by_r, by_b, None, by_first, by_cell


def _through(at: Backward, way: Direction, states: ir.Value) -> tuple[ir.Value, ...]:
    """Return the gradients of x, W, R, B and of the first state and cell in one direction."""
    op, x = at.op, at.x(0)
    steps, samples, _ = at.shape(x)
    n = at.shape(at.x(2))[2]
    w, r = way.own(at.x(1)), way.own(at.x(2))
    b_w, b_r = at.tape.ops("Split", way.input(3, [8 * n]), [4 * n] * 2, outputs=2, axis=0)
    before = way.before(way.own(states, 1), way.input(5, [samples, n]))
    read = op("MatMul", x, op("Transpose", w, perm=[1, 0]))
    kept = op("MatMul", before, op("Transpose", r, perm=[1, 0]))
    total = op("Add", op("Add", read, kept), op("Add", b_w, b_r))
    all_gates, open_new = at.tape.ops("Split", total, [3 * n, n], outputs=2, axis=2)
    gates, new = op("Sigmoid", all_gates), op("Tanh", open_new)
    enter, leave, forget = at.tape.ops("Split", gates, [n] * 3, outputs=3, axis=2)

    cell = way.input(6, [samples, n])
    cells = way.loops(_cell_step, [cell], [forget, op("Mul", enter, new)], back=False)[1]
    cells_before, shown = way.before(cells, cell), op("Tanh", cells)
    slopes = op("Mul", gates, op("Sub", 1.0, gates))
    of_enter, of_leave, of_forget = at.tape.ops("Split", slopes, [n] * 3, outputs=3, axis=2)
    values = [
        way.grad(0, [steps, samples, n]),
        op("Mul", leave, op("Sub", 1.0, op("Mul", shown, shown))),
        op("Mul", new, of_enter),
        op("Mul", shown, of_leave),
        op("Mul", cells_before, of_forget),
        op("Mul", enter, op("Sub", 1.0, op("Mul", new, new))),
        forget,
    ]
    last = [way.grad(1, [samples, n]), way.grad(2, [samples, n])]
    by_first, by_cell, by_total = way.loops(_back_step(r), last, values, back=True)
    by_bias = op("ReduceSum", by_total, [0, 1], keepdims=0)
    return (
        op("MatMul", by_total, w),
        product(at, by_total, x),
        product(at, by_total, before),
        op("Concat", by_bias, by_bias, axis=0),
        by_first,
        by_cell,
    )


def _cell_step(
    t: Tape, states: list[ir.Value], values: list[ir.Value]
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Append one step of the cell, which no output shows."""
    forget, entering = values
    cell = t.op("Add", t.op("Mul", states[0], forget), entering)
    return [cell], [t.op("Identity", cell)]


def _back_step(r: ir.Value) -> Step:
    def step(
        t: Tape, states: list[ir.Value], values: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        grad, to_cell, to_enter, to_leave, to_forget, to_new, forget = values
        by_state = t.op("Add", states[0], grad)
        by_cell = t.op("Add", states[1], t.op("Mul", by_state, to_cell))
        parts = [
            t.op("Mul", by_cell, to_enter),
            t.op("Mul", by_state, to_leave),
            t.op("Mul", by_cell, to_forget),
            t.op("Mul", by_cell, to_new),
        ]
        by_total = t.op("Concat", *parts, axis=1)
        return [t.op("MatMul", by_total, r), t.op("Mul", by_cell, forget)], [by_total]

    return step
