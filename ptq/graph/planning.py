"""From sites to what planning works on: tensors that need a scale, and the fate of every node."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from ptq.graph.passes.edit import constant
from ptq.graph.site import Site, Sites, gate_name, name_of
from ptq.plan import NodePlan
from ptq.plan.request import Request


def requests(sites: Sites) -> list[Request]:
    """Return what planning must decide, in an order in which every source comes first.

    Only tensors that compute new values are observed: what a ``move`` operator puts out has the
    scale of its input, what a ``rescale`` operator puts out a multiple of it, and a concatenation
    covers the ranges of its parts. An Add of one number may become another zero point. A move in
    float between sites keeps the scale, too: the values were rounded with it, and another would
    round again.
    """
    found: dict[str, Request] = {}
    rounded = {name_of(v) for s in sites.sites if s.requantize for v in s.outputs}
    for site in sites.sites:
        for value in site.activations:
            found.setdefault(name_of(value), _read(value, sites, rounded))
        if site.requantize:
            for value in site.outputs:
                found.setdefault(name_of(value), _put_out(value, site))
        if site.node.op_type == "HardSwish":
            name = gate_name(site.outputs[0])
            found[name] = Request(
                name,
                constant=(0.0, 1.0),
                copies=name_of(site.tensor),
                factor=site.factor,
                shift=site.shift,
            )
    return list(found.values())


def _read(value: ir.Value, sites: Sites, rounded: set[str]) -> Request:
    name, array = name_of(value), constant(value)
    if array is not None:
        return Request(name, constant=(float(array.min()), float(array.max())))
    origin = name
    while origin not in rounded and origin in sites.moved:
        origin = sites.moved[origin]
    if origin != name and origin in rounded:
        return Request(name, copies=origin)
    return Request(name, observed=name)


def _put_out(value: ir.Value, site: Site) -> Request:
    name = name_of(value)
    if site.rule.role in ("move", "rescale"):
        return Request(name, copies=name_of(site.activations[0]), factor=site.factor)
    if site.node.op_type == "Concat":
        return Request(name, joins=tuple(name_of(v) for v in site.activations))
    if site.shift != 0.0 and site.node.op_type != "HardSwish":
        copied = name_of(site.tensor)
        return Request(name, observed=name, copies=copied, factor=site.factor, shift=site.shift)
    return Request(name, observed=name)


def widths_read(sites: Sites, bits: int, edges: Collection[str], edge_bits: int) -> dict[str, int]:
    """Return the width of what is multiplied, by tensor; what several read has that of the widest.

    What only elementwise operators read, and what the network puts out, is not among them: their
    kernels are of 8 bits anyway.

    Args:
        sites: what becomes integer.
        bits: of what layers read.
        edges: the first and the last of them, by name.
        edge_bits: of what these read, if that is more.
    """
    found: dict[str, int] = {}
    for site in sites.sites:
        if site.rule.role != "linear":
            continue
        width = max(bits, edge_bits) if site.name in edges else bits
        for value in site.activations:
            found[name_of(value)] = max(width, found.get(name_of(value), 0))
    return found


def plan_nodes(model: ir.Model, sites: Sites, *, symmetric: bool) -> tuple[NodePlan, ...]:
    """Return what becomes of every node of the main graph.

    Args:
        model: the model that the sites were found in.
        sites: its sites.
        symmetric: whether weights are to have zero point 0; where the target's kernels need it,
            they have it anyway.
    """
    by_node = {id(s.node): s for s in sites.sites}
    by_node.update((id(s.absorbed), s) for s in sites.sites if s.absorbed is not None)
    planned: list[NodePlan] = []
    for node in model.graph:
        site = by_node.get(id(node))
        name = node.name or ""
        if site is None:
            why = sites.why_float.get(name, "")
            planned.append(NodePlan(name=name, op_type=node.op_type, integer=False, why=why))
            continue
        weight = site.weight if node is site.node else None
        rule = site.rule
        forced = not (rule.asymmetric and (rule.asymmetric_depthwise or not site.depthwise))
        planned.append(
            NodePlan(
                name=name,
                op_type=node.op_type,
                integer=True,
                weight=weight.name if weight is not None else None,
                weight_symmetric=symmetric or forced,
            )
        )
    return tuple(planned)
