"""Clip on codes, where saturation does not do it already, or look them up in a table.

QuantizeLinear saturates at the ends of the type that holds the codes. A grid of fewer bits ends
before, so that its codes are clipped whatever the range is. Where only some codes of the full grid
are to be left, a table says what each becomes, and clipping is part of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq.graph.qdq_writer import QdqWriter
from ptq.numerics.affine import QParams, quantize
from ptq.numerics.arrays import AnyArray
from ptq.numerics.qtype import QType
from ptq.plan import Decision
from ptq.plan.staircase import looked_up

#: Types of what is made on the way to a looked-up code; all else has that of codes.
_DTYPES = {"shape": ir.DataType.INT64, "index": ir.DataType.INT32}


def clip_codes(
    writer: QdqWriter, codes: ir.Value, name: str, bounds: tuple[float, float], decision: Decision
) -> ir.Value:
    """Return the codes of values clipped to a range.

    Rounding is monotone, so that clipping before and after it give the same code.

    Args:
        writer: of the graph.
        codes: of the values as they are.
        name: what to call new values after.
        bounds: the range.
        decision: what the codes stand for.
    """
    if decision.starts:
        return _looked_up(writer, codes, name, table(bounds, decision))
    if saturates(bounds, decision):
        return codes
    storage = QType.parse(decision.qtype).storage
    ends = [
        writer.constant_of(f"{name}/{end}", np.asarray(code, storage))
        for end, code in zip(("clip_lo", "clip_hi"), _range(bounds, decision), strict=True)
    ]
    node = ir.node("Clip", [codes, *ends], name=writer.fresh(f"{name}/Clip"))
    return writer.place(node, f"{name}/clipped", codes.dtype, after=codes.producer())


def table(bounds: tuple[float, float], decision: Decision) -> AnyArray:
    """Return what each code of a container becomes, at its index; of negative ones, from the end.

    Args:
        bounds: the range that values are clipped to.
        decision: one with codes to be looked up.
    """
    container = np.iinfo(QType.parse(decision.qtype).storage)
    all_ = np.arange(container.min, container.max + 1)
    clipped = np.clip(all_, *_range(bounds, decision))
    found = looked_up(clipped, decision.levels, decision.starts)
    return np.roll(found, container.min).astype(container.dtype)


def lookup(codes: ir.Value, entries: ir.Value, flat: ir.Value) -> list[ir.Node]:
    """Return nodes of which the last puts out the entries of a table at codes.

    Gather would do it in two, but takes 31 ns for each code in onnxruntime 1.31, and GatherElements
    of a vector 2.5; no index is of 8 bits.

    Args:
        codes: of any shape.
        entries: the table.
        flat: the shape of a vector, [-1].
    """
    shape = ir.node("Shape", [codes])
    vector = ir.node("Reshape", [codes, flat])
    cast = ir.node("Cast", vector.outputs, attributes={"to": int(ir.DataType.INT32)})
    found = ir.node("GatherElements", [entries, cast.outputs[0]])
    return [shape, vector, cast, found, ir.node("Reshape", [found.outputs[0], shape.outputs[0]])]


def _looked_up(writer: QdqWriter, codes: ir.Value, name: str, entries: AnyArray) -> ir.Value:
    """Return the entries of a table at codes."""
    held = writer.constant_of(f"{name}/table", entries)
    flat = writer.constant_of(f"{name}/flat", np.array([-1], np.int64))
    nodes, after = lookup(codes, held, flat), codes.producer()
    names = ("shape", "vector", "index", "found", "looked_up")
    for node, what in zip(nodes, names, strict=True):
        node.name = writer.fresh(f"{name}/{what}/{node.op_type}")
        writer.place(node, f"{name}/{what}", _DTYPES.get(what, codes.dtype), after=after)
        after = node
    return nodes[-1].outputs[0]


def saturates(bounds: tuple[float, float], decision: Decision) -> bool:
    """Return whether the ends of a range are those of the container: quantizing clips to it."""
    container = np.iinfo(QType.parse(decision.qtype).storage)
    return _range(bounds, decision) == (container.min, container.max)


def shares_codes(copy: Decision, other: Decision) -> bool:
    """Return whether two tensors have the same codes, each with its own scale and zero point."""
    return copy.observed == other.observed


def params_of(decision: Decision) -> QParams:
    """Return the scale that codes are made with, and the zero point, as arrays."""
    qtype = QType.parse(decision.qtype)
    return QParams(
        scale=np.asarray(decision.scale, np.float32),
        zero_point=np.asarray(decision.zero_point, qtype.storage),
        qtype=qtype,
        axis=None,
    )


def _range(bounds: tuple[float, float], decision: Decision) -> tuple[int, int]:
    """Return the codes of the ends of a range."""
    finite = np.clip(np.asarray(bounds), -3e38, 3e38).astype(np.float32)
    lo, hi = (int(code) for code in quantize(finite, params_of(decision)))
    return lo, hi
