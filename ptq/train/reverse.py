"""Reverse-mode differentiation of an ONNX graph: gradients are appended to it as operators.

The nodes between what is trained and the loss are gone through from the last to the first; the rule
of each (`ptq.train.gradients`) says how the gradient of what it puts out becomes that of what it
reads. Where an operator has no rule, nothing before it can be trained, and is not: half a gradient
would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import subgraphs
from ptq.train.gradients.base import Backward, NoGradientError, passing, rule_for
from ptq.train.tape import Tape
from ptq.train.trace import Trace
from ptq.train.variants import Variants


@dataclass(frozen=True, slots=True)
class Frozen:
    """A value that cannot be trained.

    Attributes:
        value: its name.
        node: the operator between it and the loss that is in the way, by name; empty if the loss
            does not depend on it.
        op_type: the operator.
        reason: why.
    """

    value: str
    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """What differentiating found.

    Attributes:
        of: the gradient of the loss by each value, of its shape, by name.
        frozen: the values without one.
    """

    of: Mapping[str, ir.Value]
    frozen: tuple[Frozen, ...]


def differentiate(
    graph: ir.Graph,
    loss: ir.Value,
    wanted: Sequence[ir.Value],
    trace: Trace,
    dtype: np.dtype | type = np.float32,
    variants: Variants | None = None,
) -> Gradients:
    """Append to a graph what computes the gradient of a loss, and return where it comes out.

    Args:
        graph: the forward pass, without functions but those of `ptq.train.straight_through`. It
            grows; what it puts out stays.
        loss: a number, shape ``()``.
        wanted: values of the graph by which the loss is differentiated.
        trace: of one run of it.
        dtype: what the graph computes in.
        variants: which of several equal ways each gradient is computed; keeps what is chosen.
    """
    variants = variants or Variants()
    refused: dict[int, str] = {}
    while True:
        tape = Tape(graph, "grad/", dtype)
        sweep = _Sweep(tape, loss, wanted, trace, refused, variants)
        try:
            return sweep.run()
        except _RuleRefusedError as error:
            refused[id(error.node)] = error.reason
            sweep.undo()


class _RuleRefusedError(Exception):
    def __init__(self, node: ir.Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


class _Sweep:
    """One pass over the nodes of a graph, from the last to the first."""

    def __init__(
        self,
        tape: Tape,
        loss: ir.Value,
        wanted: Sequence[ir.Value],
        trace: Trace,
        refused: Mapping[int, str],
        variants: Variants,
    ) -> None:
        self.tape = tape
        self.graph = graph = tape.graph
        self.loss = loss
        self.wanted = wanted
        self.trace = trace
        self.refused = refused
        self.variants = variants
        self.nodes = list(graph)
        self.constants = set(graph.initializers)
        self.parts: dict[int, list[ir.Value]] = {}

    def run(self) -> Gradients:
        before = self._ancestors(self.loss)
        blocked = self._blocked(before)
        free = [v for v in self.wanted if id(v) not in blocked and id(v) in before]
        active = before & _descendants(self.nodes, {id(v) for v in free})
        if id(self.loss) in active:
            self.parts[id(self.loss)] = [self.tape.constant(np.ones((), self.tape.dtype))]
        for node in reversed(self.nodes):
            self._step(node, active)
        found = {v.name or "": g for v in free if (g := self._gradient(v)) is not None}
        frozen = [
            self._frozen(v, blocked, before) for v in self.wanted if (v.name or "") not in found
        ]
        remove_unread(self.graph, [self.loss, *found.values()])
        return Gradients(found, tuple(frozen))

    def undo(self) -> None:
        """Take away what was appended."""
        for node in reversed(list(self.graph)[len(self.nodes) :]):
            _discard(self.graph, node)
        for name in set(self.graph.initializers) - self.constants:
            del self.graph.initializers[name]

    def _step(self, node: ir.Node, active: set[int]) -> None:
        grads = tuple(self._gradient(v) for v in node.outputs)
        if not any(grads) or not any(id(v) in active for v in passing(node)):
            return
        rule = rule_for(node)
        assert rule is not None, "what is before an operator without a rule is not trained"
        try:
            made = rule(Backward(node, grads, self.tape, self.trace, self.variants, active))
        except NoGradientError as error:
            raise _RuleRefusedError(node, str(error)) from error
        for value, part in zip(node.inputs, made, strict=False):
            if value is not None and part is not None and id(value) in active:
                self.parts.setdefault(id(value), []).append(part)

    def _gradient(self, value: ir.Value) -> ir.Value | None:
        """Return the gradient of a value, the sum of what its readers pass back."""
        parts = self.parts.get(id(value))
        if not parts:
            return None
        while len(parts) > 1:
            parts[:2] = [self.tape.op("Add", parts[0], parts[1])]
        return parts[0]

    def _ancestors(self, of: ir.Value) -> set[int]:
        """Return what a value depends on, through floats alone: integers have no gradient."""
        found = {id(of)}
        for node in reversed(self.nodes):
            if any(id(v) in found for v in node.outputs):
                found.update(id(v) for v in passing(node) if self.trace.is_float(v))
        return found

    def _blocked(self, before: set[int]) -> dict[int, ir.Node]:
        """Return the values before an operator without a rule, each with one such operator."""
        blocked: dict[int, ir.Node] = {}
        for node in reversed(self.nodes):
            by = next((blocked[id(v)] for v in node.outputs if id(v) in blocked), None)
            if by is None and any(id(v) in before for v in node.outputs):
                by = node if id(node) in self.refused or rule_for(node) is None else None
            if by is not None:
                blocked.update({id(v): by for v in passing(node) if id(v) in before})
        return blocked

    def _frozen(self, value: ir.Value, blocked: Mapping[int, ir.Node], before: set[int]) -> Frozen:
        node = blocked.get(id(value))
        if node is None or id(value) not in before:
            return Frozen(value.name or "", "", "", "the loss does not depend on it")
        reason = self.refused.get(id(node), f"{node.op_type} has no gradient rule")
        return Frozen(value.name or "", node.name or "", node.op_type, reason)


def remove_unread(graph: ir.Graph, kept: Iterable[ir.Value] = ()) -> None:
    """Remove the operators of which nothing is read.

    Args:
        graph: it is changed.
        kept: values that are read from outside, beside the graph's outputs.
    """
    needed = {id(v) for v in (*graph.outputs, *kept)}
    for node in reversed(list(graph)):
        if not any(v.uses() or id(v) in needed for v in node.outputs):
            _discard(graph, node)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and id(value) not in needed and not value.is_graph_input():
            del graph.initializers[name]


def _discard(graph: ir.Graph, node: ir.Node) -> None:
    """Remove an operator, and with it what its loop reads of the graph."""
    for body in subgraphs(node):
        body.outputs[:] = []
        for inner in reversed(list(body)):
            _discard(body, inner)
    graph.remove(node, safe=True)


def _descendants(nodes: Sequence[ir.Node], of: set[int]) -> set[int]:
    found = set(of)
    for node in nodes:
        if any(id(v) in found for v in passing(node)):
            found.update(id(v) for v in node.outputs)
    return found
