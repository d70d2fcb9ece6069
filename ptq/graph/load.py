"""Read a model file that anybody may have written.

The file is parsed as protobuf and nothing else; weights in external files stay there and are
mapped into memory when they are first read. Whatever is wrong is one `ModelError` that names the
file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ptq.data.feeds import Dim, InputSpec
from ptq.errors import ModelError, UnsupportedError
from ptq.graph import check, stored
from ptq.graph.passes.edit import all_nodes
from ptq.graph.passes.skeleton import Skeleton, quiet, root_cause
from ptq.graph.passes.sort_nodes import SortNodes
from ptq.graph.refuse import refuse_unsupported

#: protobuf stops here; larger models keep their weights in external files.
_LARGEST_FILE = 2**31 - 1

#: Bytes read at a time for the digest.
_CHUNK = 1 << 22

#: Names that exporters give to dimensions they know nothing about; equal names mean nothing.
_UNNAMED = frozenset({"", "?", "-1", "None"})


def load_model(path: str | Path) -> ir.Model:
    """Load a model and check that it can be worked on.

    Any opset and IR version is read. Nodes come out in topological order. External data is only
    read from the folder of the model or below.

    Raises:
        ModelError: the file is missing, damaged or not an ONNX model; a tensor has not the bytes
            that its shape claims; external data is missing or outside the folder; the graph has a
            cycle or reads what nobody makes.
        UnsupportedError: the model is quantized already, or is not a float32 model.
    """
    path = Path(path)
    try:
        model = _deserialize(_checked_proto(path), path)
        Skeleton(model)  # what cannot be written back need not be looked at
        check.structure(model)
        SortNodes()(model)
        refuse_unsupported(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"'{path}': {error}") from error.__cause__
    except ModelError as error:
        raise ModelError(f"'{path}': {error}") from error.__cause__
    return model


def input_specs(model: ir.Model) -> list[InputSpec]:
    """Return what the model wants to be fed; inputs that have a value are left out.

    Raises:
        ModelError: an input has no element type.
        UnsupportedError: an input is no tensor, but a sequence or an optional.
    """
    return [_input_spec(value) for value in model.graph.inputs if not value.is_initializer()]


def model_files(path: str | Path) -> list[Path]:
    """Return the files a model consists of: itself, then its external data by name.

    Raises:
        ModelError: as `load_model`.
    """
    path = Path(path)
    proto = _parse(path)
    locations = {
        stored.external(t).location for t in stored.all_tensors(proto) if stored.is_external(t)
    }
    return [path, *(stored.contained(name, path.absolute().parent) for name in sorted(locations))]


def model_size(path: str | Path) -> int:
    """Return the bytes of a model with its external data.

    Raises:
        ModelError: as `load_model`.
    """
    return sum(file.stat().st_size for file in model_files(path))


def model_digest(path: str | Path) -> str:
    """Return the SHA-256 of a model and its external data, in hex.

    It depends on the contents and on the names of the external files, not on where they lie.

    Raises:
        ModelError: as `load_model`.
    """
    total = hashlib.sha256()
    for file in model_files(path):
        digest = hashlib.sha256()
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise ModelError(f"'{file}' cannot be read ({error.strerror})") from error
        total.update(digest.digest())
    return total.hexdigest()


def _parse(path: Path) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    if path.is_dir():
        raise ModelError(f"'{path}' is a folder; give the .onnx file in it")
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ModelError(
                f"'{path}' has {size / 1e9:.1f} GB, protobuf stops at 2 GB; "
                "export the model with external data"
            )
        proto = onnx.ModelProto()
        proto.ParseFromString(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"'{path}' does not exist; check the name") from error
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ModelError(
            f"'{path}' is not an ONNX model or is cut off; export it again or fetch it again"
        ) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"'{path}' is not an ONNX model: it has no graph; give the .onnx file")
    return proto


def _checked_proto(path: Path) -> onnx.ModelProto:
    """Parse, and look at what must be known before anything is allocated."""
    proto = _parse(path)
    folder = path.absolute().parent
    for tensor in stored.all_tensors(proto):
        stored.check(tensor, folder)
    if proto.graph.sparse_initializer:
        raise UnsupportedError("the model has sparse initializers; export it with dense ones")
    return proto


def _deserialize(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        with quiet():
            model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"the graph cannot be read: {root_cause(error)}") from error
    # an absolute folder, for onnx_ir guards paths only where there is one
    _settle_external(model, str(path.absolute().parent))
    _rename_domain(model)
    for graph in model.graphs():
        _forget_negative_dims(graph)
    return model


def _settle_external(model: ir.Model, folder: str) -> None:
    """Tell external tensors their folder; bring those that are attributes into memory."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value.base_dir = folder
    for node in all_nodes(model):
        for name, attribute in tuple(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.value
                if isinstance(tensor, ir.ExternalTensor):
                    tensor.base_dir = folder
                    copy = ir.Tensor(tensor.numpy().copy(), name=tensor.name)
                    node.attributes[name] = ir.AttrTensor(name, copy)


def _rename_domain(model: ir.Model) -> None:
    """Use the short name of the standard domain, as onnx_ir does for nodes."""
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        if "ai.onnx" in imports:
            imports.setdefault("", imports.pop("ai.onnx"))


def _forget_negative_dims(graph: ir.Graph) -> None:
    """Make dimensions of -1 unknown ones: Paddle writes them, and no inference understands them."""
    produced = (output for node in graph for output in node.outputs)
    for value in (*graph.inputs, *graph.outputs, *produced):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            dims = [None if isinstance(d, int) and d < 0 else d for d in value.shape]
            value.shape = ir.Shape(dims)


def _input_spec(value: ir.Value) -> InputSpec:
    name = value.name or ""
    if not isinstance(value.type, ir.TensorType):
        kind = type(value.type).__name__.removesuffix("Type").lower() if value.type else "untyped"
        raise UnsupportedError(
            f"input '{name}' is {kind}, and only tensors can be fed; export the model with tensors"
        )
    dtype: np.dtype[Any] = np.dtype(object)
    if value.type.dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"input '{name}' has no element type; export the model again")
    if value.type.dtype != ir.DataType.STRING:
        dtype = value.type.dtype.numpy()
    shape = None if value.shape is None else tuple(_dim(d) for d in value.shape)
    return InputSpec(name, dtype, shape)


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    if isinstance(dim, int):
        return dim
    return None if dim.value is None or str(dim.value) in _UNNAMED else str(dim.value)
