"""Match the tensors of a float graph with what holds them in a quantized one, whoever made it.

The graph is believed before names: what DequantizeLinear makes is codes, what QuantizeLinear reads
is codes to its readers, and scales are those of the kernels that read or write them. Names only
say which tensor it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from ptq.graph.held import (
    Held,
    is_dequantizer,
    is_quantizer,
    params_of,
    params_of_codes,
    values_by_name,
)
from ptq.graph.passes.edit import is_op, only_user
from ptq.graph.passes.infer_shapes import InferShapes
from ptq.graph.tensor_map import named_codes, read_map
from ptq.graph.types import Model


@dataclass(frozen=True, slots=True)
class Matching:
    """What is held where.

    Attributes:
        held: one for each tensor that both graphs have, in the float graph's order.
        unmatched: the other float tensors of the float graph.
    """

    held: tuple[Held, ...]
    unmatched: tuple[str, ...]


def match(reference: Model, quantized: Model) -> Matching:
    """Return which values of the quantized graph hold the floating-point tensors of the other.

    Only main graphs are looked at. A tensor in front of a Relu or Clip that quantizing made
    superfluous is unmatched, as its codes are those of what comes after.

    Args:
        reference: the float model, types inferred.
        quantized: as it was read.
    """
    tensors = float_tensors(reference)
    finder = _Finder(quantized, frozenset(v.name or "" for v in tensors))
    found: dict[str, Held] = {}
    for value in tensors:
        held = finder.find(value.name or "")
        # an input that stays in float is what both models are fed
        if held is not None and not (held.params is None and value.is_graph_input()):
            found[held.tensor] = held
    for value in tensors:
        _pass_on(value, found)
    owners: dict[str, str] = {}
    ordered = []
    for value in tensors:
        held = found.get(value.name or "")
        if held is None:
            continue
        owner = owners.setdefault(held.value, held.tensor)
        ordered.append(replace(held, shared=owner != held.tensor))
    inner = (v.name or "" for v in tensors if not v.is_graph_input())
    unmatched = tuple(name for name in inner if name not in found)
    return Matching(tuple(ordered), unmatched)


def float_tensors(model: Model) -> list[ir.Value]:
    """Return inputs and inner tensors of the main graph that are known to be floating-point."""
    return [
        value
        for value in values_by_name(model.graph).values()
        if isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()
    ]


def with_types(model: Model) -> Model:
    """Return a copy of a model of which the types of inner tensors are inferred."""
    clone = model.clone()
    InferShapes()(clone)
    return clone


class _Finder:
    """Looks tensors up in one quantized graph."""

    def __init__(self, quantized: Model, tensors: frozenset[str]) -> None:
        self.tensors = tensors
        self.values = values_by_name(quantized.graph)
        self.map = read_map(quantized)

    def find(self, tensor: str) -> Held | None:
        value = self.values.get(tensor)
        if tensor in self.map:
            codes, params = self.map[tensor]
            return Held(tensor, codes, params, codes)
        if value is None:
            named = named_codes(self.values, tensor)
            return None if named is None else Held(tensor, *named, named[0])
        return self._of_value(tensor, value)

    def _of_value(self, tensor: str, value: ir.Value) -> Held | None:
        """Return what holds a tensor of which the quantized graph has a value of the same name."""
        maker = value.producer()
        if maker is not None and is_dequantizer(maker):
            codes, params = maker.inputs[0], params_of(maker)
            if codes is not None and codes.name in self.values and params is not None:
                return Held(tensor, codes.name, params, codes.name)
            return Held(tensor, tensor, None, tensor)
        others = False
        for node, index in value.uses():
            if not is_quantizer(node) or index:
                continue
            codes = node.outputs[0]
            if self._stands_for_another(codes, tensor):
                others = True
                continue
            params = params_of_codes(codes)
            if params is not None:
                return Held(tensor, codes.name or "", params, tensor)
        if others and only_user(value) is not None:
            return None
        return Held(tensor, tensor, None, tensor)

    def _stands_for_another(self, codes: ir.Value, tensor: str) -> bool:
        """Whether the codes made of a tensor are those of the Relu, say, that followed it."""
        if named_codes({codes.name or "": codes}, tensor) is not None:
            return False  # others may share them, with scales of their own
        names = {v.name for n, _ in codes.uses() if is_dequantizer(n) for v in n.outputs}
        names |= {t for t, (held, _) in self.map.items() if held == codes.name}
        return bool((names - {tensor}) & self.tensors)


def _pass_on(value: ir.Value, found: dict[str, Held]) -> None:
    """Give codes to the Relu or Clip that a quantizer removed, without renaming what it read."""
    reader, held = only_user(value), found.get(value.name or "")
    if held is None or held.params is None or reader is None or not is_op(reader, "Relu", "Clip"):
        return
    name = reader.outputs[0].name or ""
    if name not in found:
        del found[held.tensor]
        found[name] = replace(held, tensor=name)
