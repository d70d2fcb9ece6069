"""A float model of which every part of every site can be quantized, or not, by an input.

So the damage of any choice of layers is one inference of one session: what a site reads,
multiplies by and puts out goes through an If, of which one branch rounds the value as the
quantized model does, and the other hands it on. The operators themselves run in float, which is
what a QDQ graph means; integer kernels differ from it by float32 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.graph.clip_codes import lookup, params_of, table
from ptq.graph.passes.edit import constant
from ptq.graph.qdq_writer import QdqWriter
from ptq.graph.save import to_bytes
from ptq.graph.site import Site, Sites, gate_name, gate_of, name_of
from ptq.graph.writer import label
from ptq.numerics.affine import QParams
from ptq.plan import Decision, Plan

#: Makes nodes of a branch, the last of which has its output.
_Branch = Callable[[], Sequence[ir.Node]]


@dataclass(frozen=True, slots=True)
class SiteSwitches:
    """The inputs that switch the parts of one site.

    Attributes:
        name: the site's node.
        op_type: its operator.
        inner: switches of what only this site has: its weight, its bias, the gate of a HardSwish.
        reads: switch by tensor that it reads; it rounds the tensor for this site alone.
        writes: switch by tensor that it puts out; it rounds the tensor for everybody.
        weight: the constant that a linear operator or a table has; ``None`` for others.
        result: the tensor that it puts out, after what it absorbs.
    """

    name: str
    op_type: str
    inner: tuple[str, ...]
    reads: Mapping[str, str]
    writes: Mapping[str, str]
    weight: str | None
    result: str


@dataclass(frozen=True, slots=True, eq=False)
class SwitchedModel:
    """A serialized model with a switch for every part that can be quantized.

    Attributes:
        model: the bytes.
        sites: the sites in graph order.
        outputs: the model's outputs, in order.
        folder: where its external data lies.
    """

    model: bytes
    sites: tuple[SiteSwitches, ...]
    outputs: tuple[str, ...]
    folder: Path | None

    def of_sites(self, names: Collection[str]) -> frozenset[str]:
        """Return the switches that are on where just these sites are quantized."""
        chosen = [site for site in self.sites if site.name in names]
        written = {t: switch for site in chosen for t, switch in site.writes.items()}
        on = {switch for site in chosen for switch in site.inner} | set(written.values())
        for site in chosen:
            # what is rounded for everybody is rounded already
            on |= {switch for t, switch in site.reads.items() if t not in written}
        return frozenset(on)

    def of_tensor(self, tensor: str) -> frozenset[str]:
        """Return the switches that quantize one tensor, an activation or the weight of a site."""
        written = {s.writes[tensor] for s in self.sites if tensor in s.writes}
        read = {s.reads[tensor] for s in self.sites if tensor in s.reads}
        weights = {i for s in self.sites if s.weight == tensor for i in s.inner}
        return frozenset(written or read) | frozenset(weights)

    def feed(self, on: Collection[str]) -> dict[str, np.ndarray]:
        """Return what to feed the switches."""
        every = {i for s in self.sites for i in (*s.inner, *s.reads.values(), *s.writes.values())}
        return {name: np.asarray(name in on) for name in sorted(every)}


def with_switches(
    model: ir.Model, sites: Sites, plan: Plan, emitted: ir.Model, folder: Path | None
) -> SwitchedModel:
    """Return the float model with switches; it is changed.

    Args:
        model: the prepared float model that the sites were found in.
        sites: what can be quantized.
        plan: scale and zero point of every activation of the sites.
        emitted: what `emit_qdq` wrote of it without absorbing; weights and biases are taken from
            there, whatever made their codes.
        folder: where the model's external data lies.
    """
    builder = _Builder(model, plan, emitted)
    outputs = tuple(name_of(value) for value in model.graph.outputs)
    # before anything changes: the names go over to the values that are switched
    named = [_Names.of(site) for site in sites.sites]
    written = [builder.write(site) for site in sites.sites]
    found = tuple(
        builder.read(site, names, done)
        for site, names, done in zip(sites.sites, named, written, strict=True)
    )
    return SwitchedModel(to_bytes(model), found, outputs, folder)


@dataclass(frozen=True, slots=True)
class _Names:
    """What the tensors around a site are called in the float model."""

    reads: tuple[str, ...]
    result: str

    @classmethod
    def of(cls, site: Site) -> _Names:
        reads = dict.fromkeys(name_of(value) for value in site.activations)
        return cls(tuple(reads), name_of(site.outputs[0]))


class _Builder:
    """Puts switches into the graph: first behind what sites put out, then before what they read."""

    def __init__(self, model: ir.Model, plan: Plan, emitted: ir.Model) -> None:
        self.writer = QdqWriter(model)
        self.graph = model.graph
        self.plan = plan
        self.emitted = {node.name or "": node for node in emitted.graph}

    def write(self, site: Site) -> dict[str, str]:
        """Put switches behind the outputs of a site, which change for all readers."""
        if not site.requantize or site.rule.role == "table":
            return {}
        found = {}
        for value in site.outputs:
            name, readers = name_of(value), list(value.uses())
            switch = self._switch(f"{label(name)}/quantize")
            value.name = self.writer.fresh(f"{label(name)}/float")
            producer = value.producer()
            assert producer is not None
            rounded = self._select(
                switch, self._rounded(value, self.plan.tensors[name]), value, after=producer
            )
            self.writer.hand_over(value, rounded, readers)
            rounded.name = name
            found[name] = name_of(switch)
        return found

    def read(self, site: Site, names: _Names, written: dict[str, str]) -> SiteSwitches:
        """Put switches before what a site reads, and at its constants."""
        op_type = site.node.op_type  # a HardSwish becomes a Mul
        inner = list(self._constants(site))
        reads = {name: self._activation(site, name) for name in names.reads}
        gate = self._gate(site, names.result)
        if gate is not None:
            inner.append(gate)
        return SiteSwitches(
            name=site.name,
            op_type=op_type,
            inner=tuple(inner),
            reads=reads,
            writes=written,
            weight=None if site.weight is None else name_of(site.weight),
            result=names.result,
        )

    def _activation(self, site: Site, name: str) -> str:
        value = next(v for v in site.node.inputs if v is not None and name_of(v) == name)
        switch = self._switch(f"{label(name)}/{label(site.name)}/quantize")
        rounded = self._rounded(value, self.plan.tensors[name])
        chosen = self._select(switch, rounded, value, before=site.node)
        for index, given in enumerate(site.node.inputs):
            if given is value:
                site.node.replace_input_with(index, chosen)
        return name_of(switch)

    def _constants(self, site: Site) -> Iterator[str]:
        """Switch the weight and the bias that the emitted model has behind DequantizeLinear."""
        if site.weight is None:
            return
        emitted = self.emitted[site.name]
        if site.rule.role == "table":
            yield self._table(site, emitted)
            return
        for index, value in enumerate(site.node.inputs):
            given = emitted.inputs[index]
            before = None if given is None else given.producer()
            fixed = before is not None and before.op_type == "DequantizeLinear"
            if value is None or not value.is_initializer() or not fixed:
                continue
            assert before is not None
            if not all(v is not None and v.is_initializer() for v in before.inputs):
                continue
            switch = self._switch(f"{label(value.name)}/{label(site.name)}/quantize")
            chosen = self._select(switch, self._copied(before), value, before=site.node)
            site.node.replace_input_with(index, chosen)
            yield name_of(switch)

    def _copied(self, dequantize: ir.Node) -> _Branch:
        """Return a branch that dequantizes the codes that another model has."""
        constants = [self._taken(value) for value in dequantize.inputs]
        axis = dequantize.attributes.get("axis")

        def nodes() -> Sequence[ir.Node]:
            given = None if axis is None else {"axis": int(axis.value)}
            return [ir.node("DequantizeLinear", constants, attributes=given)]

        return nodes

    def _taken(self, value: ir.Value | None) -> ir.Value:
        assert value is not None
        array = constant(value)
        assert array is not None
        return self.writer.constant_of(name_of(value), array)

    def _table(self, site: Site, emitted: ir.Node) -> str:
        """Look up the codes beside the floats: to copy a whole table would cost more."""
        node, value = site.node, site.node.outputs[0]
        name, readers = name_of(value), list(value.uses())
        [after] = [u.node for u in emitted.outputs[0].uses()]
        codes = ir.node(
            node.op_type,
            [self._taken(emitted.inputs[0]), *node.inputs[1:]],
            attributes=dict(node.attributes),
            name=self.writer.fresh(f"{label(site.name)}/codes"),
        )
        found = self.writer.place(codes, f"{label(name)}/codes", None, after=node)
        constants = [self._taken(v) for v in after.inputs[1:]]
        axis = after.attributes.get("axis")

        def nodes() -> Sequence[ir.Node]:
            given = None if axis is None else {"axis": int(axis.value)}
            return [ir.node("DequantizeLinear", [found, *constants], attributes=given)]

        switch = self._switch(f"{label(site.name)}/quantize")
        value.name = self.writer.fresh(f"{label(name)}/float")
        chosen = self._select(switch, nodes, value, after=codes)
        self.writer.hand_over(value, chosen, readers)
        chosen.name = name
        return name_of(switch)

    def _gate(self, site: Site, result: str) -> str | None:
        """Open a HardSwish, whose gate has codes of its own: x times hard_sigmoid(x)."""
        gate, name = gate_of(site.node), f"{result}/gate"
        if gate is None or site.node.op_type != "HardSwish":
            return None
        decision = self.plan.tensors[gate_name(ir.Value(name=result))]
        sigmoid = ir.node(
            "HardSigmoid",
            [site.node.inputs[0]],
            attributes={"alpha": gate.alpha, "beta": gate.beta},
            name=self.writer.fresh(f"{label(name)}/HardSigmoid"),
        )
        short = label(name)
        value = self.writer.place(sigmoid, f"{short}/open", ir.DataType.FLOAT, before=site.node)
        switch = self._switch(f"{short}/quantize")
        chosen = self._select(switch, self._rounded(value, decision), value, before=site.node)
        site.node.op_type = "Mul"
        site.node.attributes.clear()
        site.node.resize_inputs(2)
        site.node.replace_input_with(1, chosen)
        return name_of(switch)

    def _rounded(self, value: ir.Value, decision: Decision) -> _Branch:
        """Return a branch that rounds a value to a grid."""
        params: QParams = params_of(decision)
        constants = {"scale": params.scale, "zero_point": params.zero_point}
        constants["step"] = np.asarray(decision.step, np.float32)
        container = np.iinfo(params.qtype.storage)
        clips = params.qtype.levels <= container.max - container.min
        if decision.starts:
            constants["table"] = table((-math.inf, math.inf), decision)
            constants["flat"] = np.array([-1], np.int64)
        elif clips:
            for end, code in (("lo", params.qtype.qmin), ("hi", params.qtype.qmax)):
                constants[end] = np.asarray(code, params.qtype.storage)
        scale, zero_point, step, *ends = (
            self.writer.constant_of(f"{label(value.name)}/{what}", array)
            for what, array in constants.items()
        )

        def nodes() -> Sequence[ir.Node]:
            made = [ir.node("QuantizeLinear", [value, scale, zero_point])]
            made[-1].outputs[0].name = self.writer.fresh("codes")
            if decision.starts:
                made += lookup(made[-1].outputs[0], *ends)
                for node in made[1:]:
                    node.outputs[0].name = self.writer.fresh("looked_up")
            elif clips:
                made.append(ir.node("Clip", [made[-1].outputs[0], *ends]))
                made[-1].outputs[0].name = self.writer.fresh("clipped")
            return [*made, ir.node("DequantizeLinear", [made[-1].outputs[0], step, zero_point])]

        return nodes

    def _switch(self, name: str) -> ir.Value:
        switch = ir.Value(
            name=self.writer.fresh(name), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(())
        )
        self.graph.inputs.append(switch)
        return switch

    def _select(
        self,
        switch: ir.Value,
        quantized: _Branch,
        value: ir.Value,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Return what a branch gives where the switch is on, and otherwise the value."""
        short = label(name_of(switch))
        branches = {
            "then_branch": self._branch(f"{short}/on", quantized()),
            "else_branch": self._branch(f"{short}/off", [ir.node("Identity", [value])]),
        }
        attributes = [ir.AttrGraph(name, graph) for name, graph in branches.items()]
        node = ir.Node("", "If", [switch], attributes, name=self.writer.fresh(f"{short}/If"))
        return self.writer.place(
            node, f"{short}/chosen", ir.DataType.FLOAT, before=before, after=after
        )

    def _branch(self, name: str, nodes: Sequence[ir.Node]) -> ir.Graph:
        result = nodes[-1].outputs[0]
        result.name, result.type = self.writer.fresh(name), ir.TensorType(ir.DataType.FLOAT)
        return ir.Graph([], [result], nodes=nodes, name=name)
