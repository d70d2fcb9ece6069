"""The map from float tensors to codes that a quantized model carries, where its graph says less.

In a QDQ file the name of a tensor is there, and DequantizeLinear makes it. Of fused operators only
codes are left, some of which stand for several tensors, each with its own scale.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

import msgspec
import numpy as np
import onnx_ir as ir

from ptq.graph.held import (
    CODES,
    CodeParams,
    is_dequantizer,
    is_quantizer,
    params_of,
    params_of_codes,
    values_by_name,
)
from ptq.graph.writer import label

#: The metadata property that holds the map, as JSON: tensor -> codes, or [codes, scale, zero point,
#: type] where no reader of the codes says these. Tensors that `named_codes` finds are left out.
PROPERTY = "ptq.tensors"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What codes of the map stand for.

    Attributes:
        codes: the value that holds them.
        scale: what a step is worth.
        zero_point: the code of 0.
        dtype: the type of the codes.
    """

    codes: str
    scale: float
    zero_point: int
    dtype: str


#: Where the codes of tensors are, and what they stand for.
InCodes: TypeAlias = dict[str, tuple[str, CodeParams]]


def tensors_held(model: ir.Model, tensors: Collection[str]) -> InCodes:
    """Return the codes of the tensors as QuantizeLinear and DequantizeLinear have them.

    Args:
        model: a model as `ptq.graph.emit_qdq` leaves it.
        tensors: names of the float model's tensors.
    """
    found: InCodes = {}
    for node in model.graph:
        if not is_dequantizer(node) or node.inputs[0] is None:
            continue
        name = node.outputs[0].name or ""
        maker = node.inputs[0].producer()
        if name not in tensors and is_quantizer(maker):
            assert maker is not None and maker.inputs[0] is not None
            name = maker.inputs[0].name or ""  # the float value stays, for others to read
        params = params_of(node)
        if name in tensors and name not in found and params is not None:
            found[name] = (node.inputs[0].name or "", params)
    return found


def write_map(model: ir.Model, held: InCodes) -> None:
    """Add the map to the metadata of a model, unless its names say all there is to know.

    Args:
        model: the model after fusing.
        held: what `tensors_held` found before.
    """
    values = values_by_name(model.graph)
    entries: dict[str, str | Entry] = {}
    for tensor, (codes, params) in held.items():
        if codes not in values or is_dequantizer(_producer(values.get(tensor))):
            continue
        named = named_codes(values, tensor)
        if named is None or named[0] != codes or not same(named[1], params):
            entries[tensor] = _entry(values[codes], params)
    if entries:
        model.metadata_props[PROPERTY] = msgspec.json.encode(entries).decode()


def read_map(model: ir.Model) -> InCodes:
    """Return the map of a model, as far as it can be read and its codes are there."""
    text = model.metadata_props.get(PROPERTY, "{}")
    try:
        entries = msgspec.json.decode(text, type=dict[str, str | Entry])
    except msgspec.DecodeError:
        return {}  # a property of that name, by somebody else
    values = values_by_name(model.graph)
    found: InCodes = {}
    for tensor, entry in entries.items():
        codes = entry if isinstance(entry, str) else entry.codes
        if codes in values:
            params = params_of_codes(values[codes]) if isinstance(entry, str) else _stated(entry)
            if params is not None:
                found[tensor] = (codes, params)
    return found


def _stated(entry: Entry) -> CodeParams | None:
    if entry.dtype not in CODES:
        return None
    limits = np.iinfo(entry.dtype)
    if not limits.min <= entry.zero_point <= limits.max:
        return None
    return CodeParams(
        np.asarray(entry.scale, np.float32), np.asarray(entry.zero_point, entry.dtype)
    )


def named_codes(values: Mapping[str, ir.Value], tensor: str) -> tuple[str, CodeParams] | None:
    """Return the codes that are called after a tensor, as we or onnxruntime's quantizer do it."""
    short = label(tensor)
    for name, scale in (
        (f"{short}/looked_up", f"{short}/scale"),  # in a table, after what was written
        (f"{short}/clipped", f"{short}/scale"),  # by a Clip on it
        (f"{short}/quantized", f"{short}/scale"),
        (f"{tensor}_quantized", f"{tensor}_scale"),
    ):
        params = params_of_codes(values[name], scale) if name in values else None
        if params is not None:
            return name, params
    return None


def same(a: CodeParams, b: CodeParams) -> bool:
    """Whether equal codes stand for equal reals."""
    return (
        a.zero_point.dtype == b.zero_point.dtype
        and np.array_equal(a.scale, b.scale)
        and np.array_equal(a.zero_point, b.zero_point)
    )


def _entry(codes: ir.Value, params: CodeParams) -> str | Entry:
    name = codes.name or ""
    known = params_of_codes(codes)
    if known is not None and same(known, params):
        return name
    # as many digits as tell one float32 from the next
    scale = float(np.format_float_scientific(params.scale.item(), unique=True, trim="-"))
    return Entry(name, scale, int(params.zero_point), params.zero_point.dtype.name)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()
