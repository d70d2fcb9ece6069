"""What recurrent operators share on the way back: directions, loops, and sums over steps.

A recurrent operator puts out its state after every step. So the gates of all steps are computed
anew by products of whole matrices, and only what the gradient of the state needs is done step by
step, in a ``Scan``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError
from ptq.train.tape import Tape

#: Given states and what belongs to a step, returns new states and what the step puts out.
Step = Callable[[Tape, list[ir.Value], list[ir.Value]], tuple[list[ir.Value], list[ir.Value]]]


#: Beyond the last step, and, negative, before the first.
_END = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """One direction of a recurrent operator.

    Attributes:
        at: the operator.
        index: which of its directions.
        backwards: whether it begins at the last step.
    """

    at: Backward
    index: int
    backwards: bool

    def own(self, value: ir.Value, axis: int = 0) -> ir.Value:
        """Return the part of a value that belongs to this direction."""
        return self.at.op("Gather", value, np.array(self.index), axis=axis)

    def input(self, index: int, shape: Sequence[int]) -> ir.Value:
        """Return the part of an optional input, zeros of a shape if it is not given."""
        given = self.at.given(index)
        return self.at.op("Expand", 0.0, list(shape)) if given is None else self.own(given)

    def grad(self, index: int, shape: Sequence[int]) -> ir.Value:
        """Return the part of the gradient of an output, zeros of a shape if there is none."""
        grads = self.at.grads
        grad = grads[index] if index < len(grads) else None
        if grad is None:
            return self.at.op("Expand", 0.0, list(shape))
        return self.own(grad, 1 if index == 0 else 0)

    def before(self, states: ir.Value, first: ir.Value) -> ir.Value:
        """Return the state before each step, given those after each and the one at first."""
        first = self.at.op("Unsqueeze", first, [0])
        if self.backwards:
            return self.at.op("Concat", self._cut(states, 1, _END), first, axis=0)
        return self.at.op("Concat", first, self._cut(states, 0, -1), axis=0)

    def loops(
        self, step: Step, states: Sequence[ir.Value], values: Sequence[ir.Value], *, back: bool
    ) -> tuple[ir.Value, ...]:
        """Return the states at last, and what the steps put out, along the first axis.

        Args:
            step: appends one step.
            states: at first.
            values: of every step, along the first axis.
            back: whether the loop goes against the direction, as gradients do.
        """
        tape, flip = self.at.tape, back != self.backwards
        name, kind = tape.name("steps"), ir.TensorType(ir.DataType.from_numpy(tape.dtype))
        count = len(states) + len(values)
        inputs = [ir.Value(name=f"{name}/input_{i}", type=kind) for i in range(count)]
        body = ir.Graph(inputs, [], nodes=[], name=name)
        inner = Tape(body, f"{name}/", tape.dtype, body=True)
        after, results = step(inner, inputs[: len(states)], inputs[len(states) :])
        for value in (*after, *results):
            value.type = kind
            body.outputs.append(value)
        given = [self._flipped(v) if flip else v for v in values]
        found = tape.ops(
            "Scan",
            *states,
            *given,
            outputs=len(body.outputs),
            body=body,
            num_scan_inputs=len(values),
        )
        put_out = [self._flipped(v) if flip else v for v in found[len(states) :]]
        return *found[: len(states)], *put_out

    def _flipped(self, value: ir.Value) -> ir.Value:
        return self.at.op("Slice", value, [-1], [-_END], [0], [-1])

    def _cut(self, value: ir.Value, start: int, end: int) -> ir.Value:
        return self.at.op("Slice", value, [start], [end], [0])


def directions(at: Backward) -> list[Direction]:
    """Return the directions of a recurrent operator."""
    kind = at.text("direction", "forward")
    if kind == "bidirectional":
        return [Direction(at, 0, backwards=False), Direction(at, 1, backwards=True)]
    return [Direction(at, 0, backwards=kind == "reverse")]


def check(at: Backward, activations: Sequence[str]) -> None:
    """Refuse forms that are not covered.

    Raises:
        NoGradientError: other activations than the default, clipped ones, samples of unlike
            lengths, or samples before steps.
    """
    attributes = at.node.attributes
    if "activations" in attributes:
        named = attributes["activations"].as_strings()
        if [str(a).lower() for a in named] != list(activations) * (len(named) // len(activations)):
            raise NoGradientError(f"its activations are {', '.join(named)}")
    if "clip" in attributes:
        raise NoGradientError("it clips its gates")
    if at.given(4) is not None:
        raise NoGradientError("its samples differ in length")
    if at.integer("layout", 0):
        raise NoGradientError("its first axis are samples")


def states_of(at: Backward) -> ir.Value:
    """Return the state after every step; it is computed again if the operator hides it."""
    if at.y.name:
        return at.y
    again = ir.Node(
        at.node.domain,
        at.node.op_type,
        at.node.inputs,
        at.node.attributes.values(),
        num_outputs=1,
        name=at.tape.name(at.node.op_type),
    )
    again.outputs[0].name = again.name
    at.tape.graph.append(again)
    return again.outputs[0]


def product(at: Backward, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return ``Σ aᵀ b`` over steps and samples, the first two axes of both; of shape (n, m)."""
    a, b = (at.op("Flatten", v, axis=2) for v in (a, b))
    return at.op("MatMul", at.op("Transpose", a, perm=[1, 0]), b)


def stacked(at: Backward, parts: Sequence[ir.Value]) -> ir.Value:
    """Return the parts of all directions as one value."""
    each = [at.op("Unsqueeze", part, [0]) for part in parts]
    return each[0] if len(each) == 1 else at.op("Concat", *each, axis=0)


def summed(at: Backward, parts: Sequence[ir.Value]) -> ir.Value:
    """Return the sum over all directions."""
    return parts[0] if len(parts) == 1 else at.op("Sum", *parts)
