"""Compute HardSwish and HardSigmoid with the integer kernels of Add and Mul.

A HardSigmoid is a sum that saturates, clip(x + beta / alpha, 0, 1 / alpha), divided by 1 / alpha:
quantizing with a step larger by 1 / alpha clips the sum where the grid ends, and dequantizing
with the step itself divides it. If the plan makes -beta / alpha a code of x, no sum is needed:
the codes of x, clipped, are those of the gate. HardSwish is the gate times x.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.clip_codes import clip_codes, params_of, shares_codes
from ptq.graph.qdq_writer import QdqWriter
from ptq.graph.site import Gate, Site, Sites, gate_name, gate_of, name_of
from ptq.graph.writer import label
from ptq.plan import Decision, Plan


@dataclass(frozen=True, slots=True, eq=False)
class GateSite:
    """A HardSigmoid or HardSwish among the sites.

    Attributes:
        site: it.
        gate: its parameters.
        name: what the gate is called in the plan.
        decision: what its codes stand for.
        recoded: whether they are those of the input, clipped.
    """

    site: Site
    gate: Gate
    name: str
    decision: Decision
    recoded: bool


def gates_of(sites: Sites, plan: Plan) -> tuple[GateSite, ...]:
    """Return the gates among the sites, while their outputs have the names of the plan."""
    found = []
    for site in sites.sites:
        gate = gate_of(site.node)
        if gate is not None:
            output = site.outputs[0]
            alone = site.node.op_type == "HardSigmoid"
            name = name_of(output) if alone else gate_name(output)
            decision, given = plan.tensors[name], plan.tensors[name_of(site.tensor)]
            recoded = shares_codes(decision, given)
            found.append(GateSite(site, gate, name, decision, recoded))
    return tuple(found)


def open_gates(
    writer: QdqWriter, gates: Iterable[GateSite], codes: Mapping[int, ir.Value]
) -> set[str]:
    """Write each HardSigmoid as Add and each HardSwish as Mul with a gate, in its place.

    Returns the names of the nodes that are new.

    Args:
        writer: of the graph, in which activations are quantized already.
        gates: where.
        codes: of the activations, by the identity of the float value.
    """
    added: set[str] = set()
    for opened in gates:
        node = opened.site.node
        if node.op_type == "HardSigmoid":
            if not opened.recoded:  # otherwise the node is gone
                _become(node, "Add", _addend(writer, opened))
        elif opened.recoded:
            gate = _dequantized(writer, opened, codes[id(opened.site.tensor)])
            _become(node, "Mul", gate)
        else:
            total = _sum(writer, opened)
            added.add(total.name or "")
            _become(node, "Mul", _dequantized(writer, opened, _quantized(writer, opened, total)))
    return added


def _sum(writer: QdqWriter, opened: GateSite) -> ir.Node:
    node, name = opened.site.node, label(opened.name)
    operands = [node.inputs[0], _addend(writer, opened)]
    total = ir.node("Add", operands, name=writer.fresh(f"{node.name}/Add"))
    writer.place(total, f"{name}/float", ir.DataType.FLOAT, before=node)
    return total


def _quantized(writer: QdqWriter, opened: GateSite, total: ir.Node) -> ir.Value:
    name, params = label(opened.name), params_of(opened.decision)
    zero_point = writer.constant_of(f"{name}/zero_point", params.zero_point)
    made = gate_step(writer, name, opened.gate, opened.decision), zero_point
    return writer.quantize(total.outputs[0], name, made, after=total)


def _dequantized(writer: QdqWriter, opened: GateSite, codes: ir.Value) -> ir.Value:
    name, params = label(opened.name), params_of(opened.decision)
    clipped = clip_codes(writer, codes, name, (0.0, 1.0), opened.decision)
    parameters = (
        writer.constant_of(f"{name}/scale", np.asarray(opened.decision.step, np.float32)),
        writer.constant_of(f"{name}/zero_point", params.zero_point),
    )
    node = opened.site.node
    return writer.dequantize(clipped, f"{name}/dequantized", parameters, before=node)


def gate_step(writer: QdqWriter, name: str, gate: Gate, decision: Decision) -> ir.Value:
    """Return the step with which the sum of a gate is quantized, as an initializer."""
    step = np.asarray(decision.scale / gate.alpha, np.float32)
    return writer.constant_of(f"{name}/scale_of_sum", step)


def _addend(writer: QdqWriter, opened: GateSite) -> ir.Value:
    """Return beta / alpha behind DequantizeLinear: one step of that size up, down, or none."""
    name, shift = label(opened.name), opened.gate.beta / opened.gate.alpha
    storage = params_of(opened.decision).zero_point.dtype
    point, code = int(shift < 0), int(shift > 0)
    codes = writer.constant_of(f"{name}/addend", np.asarray(code, storage))
    parameters = (
        writer.constant_of(f"{name}/addend_scale", np.asarray(abs(shift) or 1.0, np.float32)),
        writer.constant_of(f"{name}/addend_zero_point", np.asarray(point, storage)),
    )
    return writer.dequantize(codes, f"{name}/addend_dequantized", parameters)


def _become(node: ir.Node, op_type: str, operand: ir.Value) -> None:
    """Turn an operator of one input into one of two."""
    node.op_type = op_type
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(1, operand)
