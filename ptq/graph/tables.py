"""Constant tables of which rows are looked up: embeddings.

Looking up codes and dequantizing what was found is as fast as looking up floats, and the table is a
quarter as large; dequantizing the table first would take a thousand times as long (KERNELS, hazard
4). The scales are along the last axis: embeddings have columns that are large throughout. (MiniLM:
41.9 dB with a scale for each column, 35.1 for each row, 24.9 with one.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ptq.graph.passes.edit import constant, input_at, int_attribute
from ptq.graph.site import Site
from ptq.targets import OpRule

#: Smaller tables are not worth a node.
_LEAST_SIZE = 1 << 14


def table_site(node: ir.Node, rule: OpRule) -> Site | str:
    """Return the site of a lookup, or why it is none."""
    value = input_at(node, rule.weight or 0)
    table = constant(value)
    if value is None or table is None:
        return "the table is not constant"
    if value.dtype != ir.DataType.FLOAT:
        return f"the table is {value.dtype}, not float32"
    if table.ndim != 2 or int_attribute(node, "axis", 0) != 0:
        return "only rows of a matrix are looked up as codes"
    if table.size < _LEAST_SIZE:
        return "a table so small is not worth it"
    return Site(
        node=node,
        rule=rule,
        activations=(),
        weight=value,
        bias=None,
        absorbed=None,
        outputs=tuple(node.outputs),
        requantize=False,
        weight_axis=1 if rule.per_channel else None,
    )


def read_in_float(site: Site, chosen: Mapping[int, Site]) -> bool:
    """Return whether somebody reads the table of a lookup in float, so that it has to stay.

    Args:
        site: the lookup.
        chosen: all sites, by the identity of their node.
    """
    table = site.weight
    assert table is not None

    def reads_codes(node: ir.Node, index: int) -> bool:
        reader = chosen.get(id(node))
        return reader is not None and reader.weight is table and index == reader.rule.weight

    return table.is_graph_output() or not all(reads_codes(*use) for use in table.uses())
