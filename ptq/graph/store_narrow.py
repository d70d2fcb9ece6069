"""Store weights in as few bits as their codes take, and widen them to int8 at load.

Kernels multiply int8. onnxruntime does not fuse an operator with a DequantizeLinear of INT4; but
what is computed from constants alone it computes once, when it loads the model, and then finds the
int8 codes that it fuses. So the file has few bits a weight, and the model runs as fast as with 8.

All weights of one width are one constant, which is unpacked once and split: nodes for each of them
would take more bytes than the weights of small networks.

Reference: none; measured with onnxruntime 1.31 (`docs/low-bits.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.packed_codes import PackedCodes, as_indices, bits_for, packed_bytes
from ptq.graph.passes.edit import Array, constant
from ptq.graph.writer import GraphWriter
from ptq.numerics.qtype import INT4

#: About how many bytes it takes in the file that a weight is a part of a constant, that it is
#: looked up in tables of its own, and that there is a constant of which weights are parts.
_PART_BYTES, _LOOKUP_BYTES, _GROUP_BYTES = 70, 250, 350

#: What tables must spare of a weight: its indices take four bytes each while a model is loaded.
_LEAST_GAIN = 1 / 16

#: How many numbers a constant holds at most, unless one weight has more: while a model is loaded,
#: all of them are in memory several times.
_MOST_NUMBERS = 1 << 17


def store_narrow(model: ir.Model) -> int:
    """Store int8 weights in fewer bits where that makes the file smaller; return how many.

    Which codes there are decides, not what they were made for: a weight of 4 bits of which the
    codes fit 3 is stored in 3; one with 4 different codes, or with 4 in each channel, in 2, beside
    a table. Vectors stay, for they are read as constants otherwise, as zero points are.

    Args:
        model: a quantized model of opset 21 or newer; it is changed.
    """
    groups = list(_groups(list(_weights(model))))
    packed = PackedCodes(GraphWriter(model))
    for number, group in enumerate(groups):
        _write(packed, group, f"w{number}")
    return sum(map(len, groups))


def stored_bytes(count: int, bits: int) -> int:
    """Return about how many bytes a weight takes in the file, with the nodes that widen it.

    Args:
        count: how many codes it has.
        bits: of each.
    """
    return min(count, packed_bytes(count, bits) + _PART_BYTES)


def bits_of(codes: Array) -> int:
    """Return the least width of two's complement that holds all of these, 1 or more."""
    lo, hi = int(codes.min(initial=0)), int(codes.max(initial=0))
    return 1 + max((-lo - 1).bit_length() if lo < 0 else 0, hi.bit_length())


#: The codes that numbers are indices of; none where numbers are codes.
_Levels: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Narrow:
    """A weight, and numbers from which its codes are found.

    Attributes:
        graph: where it is a constant.
        value: its codes, int8.
        numbers: in the shape of the codes, int8.
        bits: of each in two's complement, 1 to 8.
        levels: what numbers are indices of, the same for all channels: codes, or indices of tables.
        tables: the codes of each channel, if they are not the same: ``(channels, levels)`` where
            channels are the first axis, and ``(levels, channels)`` where they are the last.
        axis: of the tables, the one of the levels.
    """

    graph: ir.Graph
    value: ir.Value
    numbers: Array
    bits: int
    levels: _Levels = ()
    tables: Array | None = None
    axis: int = 0

    @property
    def packed(self) -> int:
        """How many bytes the numbers take, without any nodes."""
        return packed_bytes(self.numbers.size, self.bits, len(self.levels))

    @property
    def size(self) -> int:
        """About how many bytes it takes, as a part of a constant or alone."""
        bare = self.packed + _PART_BYTES
        if self.tables is None:
            return bare
        return bare + self.tables.size + _LOOKUP_BYTES + int(self.numbers.size * _LEAST_GAIN)

    @property
    def matrix(self) -> Array:
        """The numbers as rows, or columns, of which each has a table of its own, if so it is."""
        shape = self.numbers.shape
        if self.tables is None:
            return self.numbers
        return self.numbers.reshape((shape[0], -1) if self.axis == 1 else (-1, shape[-1]))


def _weights(model: ir.Model) -> Iterator[_Narrow]:
    """Yield the weights as they are."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            codes = constant(value)
            if codes is None or codes.dtype != np.int8 or codes.ndim < 2 or not codes.size:
                continue
            if value.uses() and not value.is_graph_output():
                yield _Narrow(graph, value, codes, bits_of(codes))


def _groups(weights: list[_Narrow]) -> Iterator[list[_Narrow]]:
    """Yield weights that are stored as one constant, each in the form that takes fewest bytes."""
    forms = [min((w, *_by_channel(w)), key=lambda form: form.size) for w in weights]
    for alike in _by_levels(weights):
        if _size(list(alike.values())) < sum(forms[i].size for i in alike):
            for i, form in alike.items():
                forms[i] = form
    groups: dict[tuple[int, int, _Levels], list[_Narrow]] = {}
    for form in forms:
        if form.size < form.numbers.size:
            groups.setdefault((id(form.graph), form.bits, form.levels), []).append(form)
    for group in groups.values():
        for part in _cut(group):
            if _size(part) < sum(form.numbers.size for form in part):
                yield part


def _by_channel(weight: _Narrow) -> Iterator[_Narrow]:
    """Yield a weight as indices into the codes of each channel, where that takes fewer bits."""
    codes = weight.numbers
    for axis in (0, codes.ndim - 1):
        index = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.intp) + 128
        present = np.zeros((len(index), 256), bool)
        np.put_along_axis(present, index, True, axis=1)
        levels = int(present.sum(axis=1).max())
        bits = bits_for(levels)
        if bits >= weight.bits:
            continue
        ranks = present.cumsum(axis=1, dtype=np.int16) - 1
        tables = np.zeros((len(index), levels), np.int8)
        channel, code = np.nonzero(present)
        tables[channel, ranks[channel, code]] = code - 128
        numbers = as_indices(np.take_along_axis(ranks, index, axis=1), levels)
        shape = (codes.shape[axis], *np.delete(codes.shape, axis))
        numbers = np.moveaxis(numbers.reshape(shape), 0, axis)
        # numbers that stand for themselves by a table can be digits, which may take less
        digits = packed_bytes(codes.size, bits, levels) < packed_bytes(codes.size, bits)
        first = axis == 0
        yield replace(
            weight,
            numbers=numbers,
            bits=bits,
            levels=tuple(as_indices(np.arange(levels), levels).tolist()) if digits else (),
            tables=tables if first else tables.T,
            axis=1 if first else 0,
        )


def _by_levels(weights: list[_Narrow]) -> Iterator[dict[int, _Narrow]]:
    """Yield weights as indices into the same codes, by their number, where that takes less."""
    found: dict[tuple[int, _Levels], list[int]] = {}
    for i, weight in enumerate(weights):
        levels = tuple(int(code) for code in np.unique(weight.numbers))
        count, bits = weight.numbers.size, bits_for(len(levels))
        if packed_bytes(count, bits, len(levels)) < packed_bytes(count, weight.bits):
            found.setdefault((id(weight.graph), levels), []).append(i)
    alike: dict[tuple[int, _Levels], dict[int, _Narrow]] = {}
    for (graph, levels), numbers in found.items():
        others = (of for g, of in found if g == graph and set(levels) <= set(of))
        home = max((of for of in others if bits_for(len(of)) == bits_for(len(levels))), key=len)
        for i in numbers:
            ranks = np.searchsorted(home, weights[i].numbers)
            form = replace(
                weights[i],
                numbers=as_indices(ranks, len(home)),
                bits=bits_for(len(home)),
                levels=home,
            )
            alike.setdefault((graph, home), {})[i] = form
    yield from alike.values()


def _cut(group: list[_Narrow]) -> Iterator[list[_Narrow]]:
    """Yield neighbours that have not too many numbers together."""
    part: list[_Narrow] = []
    for form in group:
        if part and sum(f.numbers.size for f in part) + form.numbers.size > _MOST_NUMBERS:
            yield part
            part = []
        part.append(form)
    yield part


def _size(group: list[_Narrow]) -> int:
    """Return about how many bytes weights take as one constant."""
    count, first = sum(form.numbers.size for form in group), group[0]
    parts = sum(form.size - form.packed for form in group)
    return packed_bytes(count, first.bits, len(first.levels)) + parts + _GROUP_BYTES


def _write(packed: PackedCodes, group: list[_Narrow], name: str) -> None:
    """Put what is computed of one constant in the place of the weights."""
    if group[0].bits == INT4.bits:
        for i, form in enumerate(group):
            _replace(form, _of_int4(packed, form, f"{name}/{i}"))
        return
    graph, first = group[0].graph, group[0]
    numbers = np.concatenate([form.numbers.reshape(-1) for form in group])
    row, length = packed.unpacked(graph, name, numbers, first.bits, first.levels)
    sizes = [form.numbers.size for form in group]
    rest = length - sum(sizes)
    parts = packed.split(graph, name, row, [*sizes, rest] if rest else sizes)
    for form, part in zip(group, parts, strict=False):  # the rest means nothing
        _replace(form, _of_part(packed, form, part))


def _of_int4(packed: PackedCodes, form: _Narrow, name: str) -> ir.Value:
    """Return the codes of a weight of 4 bits, which has a type and is a constant of its own."""
    graph, shape = form.graph, form.matrix.shape
    stored = packed.stored(graph, name, form.matrix, INT4)
    if form.tables is not None:
        codes = packed.looked_up(graph, name, stored, form.tables, form.axis)
    elif form.levels:
        codes = packed.looked_up(graph, name, stored, np.array(form.levels, np.int8))
    else:
        codes = packed.cast(graph, f"{name}/int8", stored, ir.DataType.INT8)
    wanted = form.numbers.shape
    return codes if shape == wanted else packed.reshaped(graph, f"{name}/whole", codes, wanted)


def _of_part(packed: PackedCodes, form: _Narrow, part: ir.Value) -> ir.Value:
    """Return the codes of a weight, of its part of what was unpacked."""
    graph, name = form.graph, part.name or ""
    if form.tables is not None:
        part = packed.reshaped(graph, f"{name}/matrix", part, form.matrix.shape)
        part = packed.looked_up(graph, name, part, form.tables, form.axis)
        if form.matrix.shape == form.numbers.shape:
            return part
    return packed.reshaped(graph, f"{name}/whole", part, form.numbers.shape)


def _replace(form: _Narrow, codes: ir.Value) -> None:
    """Let codes be read under the name of the constant that they are now computed for."""
    name = form.value.name or ""
    del form.graph.initializers[name]
    form.value.replace_all_uses_with(codes)
    form.value.name, codes.name = None, name
