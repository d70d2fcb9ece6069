"""What a rule of differentiation is given: one operator, and the gradient of what it puts out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import (
    float_attribute,
    input_at,
    int_attribute,
    ints_attribute,
    text_attribute,
)
from ptq.train.tape import Attribute, Operand, Tape
from ptq.train.trace import Trace
from ptq.train.variants import Variants


class NoGradientError(Exception):
    """A rule does not cover this form of its operator; says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """One operator of the forward pass, on the way back.

    Attributes:
        node: the operator.
        grads: the gradient of each of its outputs, of that one's shape; ``None`` if there is none.
        tape: appends operators to the graph.
        trace: shapes of the values of the forward pass.
        variants: which of several equal ways is taken.
        active: the values of which a gradient is needed, by identity; ``None`` for all.
    """

    node: ir.Node
    grads: tuple[ir.Value | None, ...]
    tape: Tape
    trace: Trace
    variants: Variants = field(default_factory=Variants)
    active: Set[int] | None = None

    @property
    def grad(self) -> ir.Value:
        """The gradient of the first output."""
        if self.grads[0] is None:
            raise NoGradientError("only its further outputs are read")
        return self.grads[0]

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def x(self, index: int) -> ir.Value:
        """Return an input that is there."""
        value = input_at(self.node, index)
        assert value is not None, f"{self.node.op_type} has input {index}"
        return value

    def given(self, index: int) -> ir.Value | None:
        """Return an optional input."""
        return input_at(self.node, index)

    def wants(self, value: ir.Value) -> bool:
        """Return whether the gradient of an input is needed; for what costs time to choose."""
        return self.active is None or id(value) in self.active

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return the shape of a value of the forward pass."""
        return self.trace.shape(value)

    def array(self, index: int) -> np.ndarray | None:
        """Return the numbers of an input that is constant, or no float; ``None`` if not given.

        Raises:
            NoGradientError: it is given, and not known.
        """
        value = self.given(index)
        if value is None:
            return None
        known = self.trace.array(value)
        if known is None:
            raise NoGradientError(f"its input '{value.name}' is computed")
        return known

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        return int_attribute(self.node, name, default)

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Return an attribute that is a list of integers."""
        return ints_attribute(self.node, name, default)

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a float."""
        return float_attribute(self.node, name, default)

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a text."""
        return text_attribute(self.node, name, default)

    def op(self, op_type: str, *inputs: Operand, **attributes: Attribute) -> ir.Value:
        """Append an operator and return its output; see `Tape.op`."""
        return self.tape.op(op_type, *inputs, domain="", **attributes)

    def mask(self, condition: ir.Value) -> ir.Value:
        """Return 1.0 where a condition holds, and 0.0 elsewhere."""
        return self.op("Cast", condition, to=int(ir.DataType.from_numpy(self.tape.dtype)))

    def reduced(self, grad: ir.Value, shape: Sequence[int], to: ir.Value) -> ir.Value:
        """Return the gradient of a value that was broadcast.

        Args:
            grad: the gradient after broadcasting.
            shape: of that gradient.
            to: what was broadcast.
        """
        wanted = self.shape(to)
        lead = len(shape) - len(wanted)
        axes = [i for i, n in enumerate(shape) if i < lead or (wanted[i - lead] == 1 and n != 1)]
        if axes:
            grad = self.op("ReduceSum", grad, axes, keepdims=1)
        return self.op("Reshape", grad, list(wanted)) if lead else grad


#: Returns the gradient of each input, of that one's shape; ``None`` where it is zero, or of no use.
Rule: TypeAlias = Callable[[Backward], Sequence["ir.Value | None"]]

_RULES: dict[tuple[str, str], Rule] = {}
_SEVERED: dict[tuple[str, str], frozenset[int]] = {}


def gradient(
    *op_types: str, domain: str = "", severed: Sequence[int] = ()
) -> Callable[[Rule], Rule]:
    """Register a rule for operators.

    A rule may append operators for gradients that nobody needs: what is not read is removed. It
    raises `NoGradientError` for a form of the operator that it does not cover, before it appends
    anything that is read.

    Args:
        op_types: their names.
        domain: their domain.
        severed: positions of inputs to which no gradient goes, whatever they are.
    """

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            assert (domain, op_type) not in _RULES, f"{op_type} has two rules"
            _RULES[domain, op_type] = rule
            _SEVERED[domain, op_type] = frozenset(severed)
        return rule

    return register


def rule_for(node: ir.Node) -> Rule | None:
    """Return the rule for an operator, if there is one."""
    if not _RULES:
        package = importlib.import_module("ptq.train.gradients")
        for module in pkgutil.iter_modules(package.__path__, "ptq.train.gradients."):
            importlib.import_module(module.name)
    return _RULES.get(_key(node))


def passing(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of an operator to which a gradient may go."""
    severed = _SEVERED.get(_key(node), frozenset())
    return [v for i, v in enumerate(node.inputs) if v is not None and i not in severed]


def _key(node: ir.Node) -> tuple[str, str]:
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type
