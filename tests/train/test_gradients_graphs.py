"""Random graphs of many operators, differentiated along a random direction."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated

from ptq.train.tape import Tape

SHAPE = (2, 4, 6)
ONES, HALVES = np.ones(6), np.full(6, 0.5)

#: From two tensors of one shape to one of that shape; none of them makes large numbers.
OPERATORS = {
    "add": lambda t, a, b: t.op("Add", a, b),
    "subtract": lambda t, a, b: t.op("Sub", a, t.op("Mul", b, 0.5)),
    "multiply": lambda t, a, b: t.op("Mul", t.op("Tanh", a), b),
    "divide": lambda t, a, b: t.op("Div", a, t.op("Add", t.op("Softplus", b), 1.0)),
    "power": lambda t, a, b: t.op("Pow", t.op("Sigmoid", a), t.op("Softsign", b)),
    "choose": lambda t, a, b: t.op("Where", t.op("Greater", a, b), t.op("Neg", a), b),
    "greater": lambda t, a, b: t.op("Max", a, b, 0.1),
    "relu": lambda t, a, b: t.op("Relu", t.op("Sub", a, b)),
    "leaky relu": lambda t, a, b: t.op("LeakyRelu", a, alpha=0.2),
    "hard swish": lambda t, a, b: t.op("HardSwish", a),
    "elu": lambda t, a, b: t.op("Elu", a, alpha=0.5),
    "clip": lambda t, a, b: t.op("Clip", a, -1.0, t.op("ReduceMax", b, keepdims=0)),
    "root": lambda t, a, b: t.op("Sqrt", t.op("Add", t.op("Abs", a), 0.1)),
    "exponential": lambda t, a, b: t.op("Log", t.op("Add", t.op("Exp", t.op("Neg", a)), 1.0)),
    "softmax": lambda t, a, b: t.op("Softmax", a, axis=1),
    "normalize": lambda t, a, b: t.op("LayerNormalization", a, ONES, HALVES, epsilon=0.1),
    "mean": lambda t, a, b: t.op("Sub", a, t.op("ReduceMean", b, [1])),
    "length": lambda t, a, b: t.op("Mul", a, t.op("Expand", t.op("ReduceL2", b, [0]), [2, 1, 1])),
    "sum up": lambda t, a, b: t.op("Mul", t.op("CumSum", a, np.array(1)), 0.3),
    "concatenate": lambda t, a, b: t.op(
        "Slice", t.op("Concat", a, b, axis=1), [6], [-6], [1], [-1]
    ),
    "split": lambda t, a, b: t.op(
        "Concat", *t.ops("Split", a, [2, 4], outputs=2, axis=2)[::-1], axis=2
    ),
    "transpose": lambda t, a, b: t.op("Reshape", t.op("Transpose", a), [2, 4, 6]),
    "every other": lambda t, a, b: t.op("Tile", t.op("Slice", a, [0], [6], [2], [2]), [1, 1, 2]),
    "largest": lambda t, a, b: t.op("Add", t.ops("TopK", a, [1], outputs=2)[0], b),
    "round": lambda t, a, b: t.op("Add", t.op("Round", a), b),
    "count": lambda t, a, b: t.op("Div", b, t.op("Cast", t.op("Size", a), to=11)),
    "attend": lambda t, a, b: t.op("Einsum", a, _likeness(t, a, b), equation="bij,bik->bkj"),
}


def _likeness(t: Tape, a: ir.Value, b: ir.Value) -> ir.Value:
    return t.op("Einsum", t.op("Softmax", a), b, equation="bij,bkj->bik")


STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(1, 3), st.integers(1, 4)),
    min_size=3,
    max_size=10,
)


@settings(max_examples=25)
@given(steps=STEPS, seed=st.integers(0, 999))
def test_a_gradient_is_the_slope_in_any_direction(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    def forward(t, x, w):  # type: ignore[no-untyped-def]
        tensors = [x, w]
        for name, first, second in steps:
            a, b = tensors[-min(first, len(tensors))], tensors[-min(second, len(tensors))]
            tensors.append(OPERATORS[name](t, a, b))
        return t.op("Sum", *tensors)

    rng = np.random.default_rng(seed)
    found = Differentiated(forward, {"x": rng.normal(size=SHAPE), "w": rng.normal(size=SHAPE)})
    assert found.frozen == ()
    direction = {name: rng.normal(size=SHAPE) for name in found.feed}
    slope = sum(float(np.sum(found.gradient(n) * d)) for n, d in direction.items())
    # differences over 1e-6 of numbers up to some hundreds keep seven digits
    np.testing.assert_allclose(slope, found.along(direction), rtol=1e-5, atol=1e-5)
