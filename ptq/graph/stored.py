"""Whether the tensors in a model file are what they claim to be.

A file can claim a shape of terabytes, or weights outside its folder. Everything is compared with
the bytes that are there before anything is allocated or opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import onnx
import onnx_ir as ir

from ptq.errors import ModelError

#: The fields of TensorProto that hold a number per element (onnx.proto); a complex one takes two.
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True, slots=True)
class External:
    """Where the bytes of an external tensor lie.

    Attributes:
        location: path relative to the model's folder.
        offset: first byte.
        length: number of bytes where the model states it.
    """

    location: str
    offset: int
    length: int | None


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of graphs, subgraphs, functions and attributes."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _of_graph(graph)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether the bytes lie in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def external(tensor: onnx.TensorProto) -> External:
    """Return where an external tensor lies.

    Raises:
        ModelError: the location is missing, or an offset or length is no natural number.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    numbers = {key: entries.get(key) for key in ("offset", "length")}
    for key, text in numbers.items():
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise ModelError(f"external tensor '{tensor.name}' has {key} '{text}'; export it again")
    if not entries.get("location"):
        raise ModelError(f"external tensor '{tensor.name}' names no file; export it again")
    length = numbers["length"]
    return External(
        entries["location"], int(numbers["offset"] or 0), None if length is None else int(length)
    )


def check(tensor: onnx.TensorProto, folder: Path) -> None:
    """Compare the shape of a tensor with the bytes that are there.

    Args:
        tensor: from the file.
        folder: the folder of the model; external data must lie in it.

    Raises:
        ModelError: the type is unknown, a dimension is negative, bytes are missing or too many,
            or the file is missing or outside the folder.
    """
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise ModelError(
            f"tensor '{tensor.name}' has the unknown element type {tensor.data_type}; "
            "a newer onnx package may know it"
        ) from error
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor '{tensor.name}' has a negative dimension; export it again")
    if tensor.HasField("segment"):
        raise ModelError(f"tensor '{tensor.name}' is stored in segments; export it again")
    elements = math.prod(tensor.dims)
    if dtype == ir.DataType.STRING:
        _compare(tensor, elements, len(tensor.string_data), "strings")
    elif dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"tensor '{tensor.name}' has no element type; export it again")
    elif is_external(tensor):
        _check_external(tensor, _packed(elements, dtype), folder)
    elif tensor.HasField("raw_data"):
        _compare(tensor, _packed(elements, dtype), len(tensor.raw_data), "bytes")
    else:
        numbers = max(len(getattr(tensor, field)) for field in _FIELDS)
        _compare(tensor, _numbers(elements, dtype), numbers, "numbers")


def _packed(elements: int, dtype: ir.DataType) -> int:
    """Return the bytes that so many elements take; types below 8 bits are packed."""
    return -(-elements * dtype.bitwidth // 8)


def _numbers(elements: int, dtype: ir.DataType) -> int:
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * elements
    # of the small types, those of 2 and 4 bits are packed into one number per byte, those of 6 not
    return _packed(elements, dtype) if dtype.bitwidth in (2, 4) else elements


def _compare(tensor: onnx.TensorProto, claimed: int, stored: int, unit: str) -> None:
    if claimed != stored:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        raise ModelError(
            f"tensor '{tensor.name}' ({shape}) needs {claimed} {unit} and has {stored}; "
            "the file is damaged"
        )


def _check_external(tensor: onnx.TensorProto, claimed: int, folder: Path) -> None:
    where = external(tensor)
    path = contained(where.location, folder)
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(
            f"external data '{where.location}' of tensor '{tensor.name}' cannot be read "
            f"({error.strerror}); put it beside the model"
        ) from error
    if not path.is_file():
        raise ModelError(f"external data '{where.location}' is not a file; export the model again")
    if status.st_nlink > 1:
        # onnx_ir refuses it later, for it could be a hard link to any file of the system
        raise ModelError(
            f"external data '{where.location}' has several hard links; make a copy of the file"
        )
    if where.length is not None:
        _compare(tensor, claimed, where.length, "bytes")
    _compare(tensor, claimed, min(claimed, max(0, status.st_size - where.offset)), "bytes")


def contained(location: str, folder: Path) -> Path:
    """Return the path of an external file, which must lie in the model's folder.

    Raises:
        ModelError: the location is absolute, or leads out of the folder, by ``..`` or by a link.
    """
    base = folder.resolve()
    resolved = (base / location).resolve()
    if PurePath(location).is_absolute() or not resolved.is_relative_to(base):
        raise ModelError(
            f"external data '{location}' lies outside the model's folder, which is not allowed; "
            "copy the model and its data into one folder"
        )
    return folder / location
