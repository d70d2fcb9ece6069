"""Write a model file so that it is there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

import onnx
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.passes.skeleton import quiet, root_cause

#: Written for opsets up to 22, whatever the model had: old enough for every runtime of the last
#: years, new enough for 4-bit types (onnx IR.md; onnx's own default is often too new to load).
_IR_VERSION = 10

#: The least IR version of newer opsets (onnx docs/Versioning.md).
_NEEDED_IR_VERSION = {23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14}

#: protobuf holds no more.
_LARGEST_MESSAGE = 2**31 - 1

#: Bytes of weights above which they go to a file of their own; some room is for the graph.
_LARGEST_INLINE = 1_900_000_000

_TOO_LARGE = "the model is larger than the 2 GB that protobuf holds; save it with external data"

#: Smaller tensors stay in the model file, where shape inference can see them.
_SMALLEST_EXTERNAL = 1024

#: Offsets of external tensors, for aligned loads (AVX-512 takes 64 bytes).
_ALIGNMENT = 64


def to_bytes(model: ir.Model) -> bytes:
    """Return the serialized model; equal models give equal bytes.

    External tensors stay references into the folder they came from.

    Raises:
        ModelError: the model without its external data is larger than 2 GB.
    """
    return _serialize(model)


def save_model(model: ir.Model, path: str | Path, *, external: bool | None = None) -> None:
    """Write a model.

    The files appear under their names only when they are complete: data first, then the model.
    Whatever goes wrong before, nothing is left behind. Tensors that lie in external files are
    copied, so the result does not depend on the file the model was loaded from.

    Args:
        model: it is not changed. Do not use it any longer if this overwrites its external data.
        path: of the model file.
        external: whether weights go to a file ``path + ".data"``; by default where they are
            larger than 1.9 GB together.

    Raises:
        ModelError: a file cannot be written, or the model is too large for one file.
    """
    path = Path(path)
    if external is None:
        external = sum(tensor.nbytes for _, tensor in _weights(model)) > _LARGEST_INLINE
    data = path.with_name(f"{path.name}.data")
    try:
        with _Publication() as publication, ExitStack() as weights:
            if external:
                stream = publication.open(data)
                weights.enter_context(_replaced(model, lambda t: _moved(t, stream, data.name)))
            else:
                weights.enter_context(_replaced(model, _loaded))
            publication.open(path).write(_serialize(model))
    except OSError as error:
        raise ModelError(
            f"'{path}' cannot be written ({error.strerror or error}); choose another place"
        ) from error


def _serialize(model: ir.Model) -> bytes:
    from google.protobuf.message import EncodeError

    inline = (t.nbytes for _, t in _weights(model) if not isinstance(t, ir.ExternalTensor))
    if sum(inline) > _LARGEST_MESSAGE:
        raise ModelError(_TOO_LARGE)
    try:
        with quiet():
            proto: onnx.ModelProto = ir.serde.serialize_model(model)
    except ir.serde.SerdeError as error:
        raise ModelError(f"the model cannot be written: {root_cause(error)}") from error
    opset = model.opset_imports.get("", 0)
    proto.ir_version = _NEEDED_IR_VERSION.get(opset, _IR_VERSION)
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise ModelError(_TOO_LARGE) from error


def _weights(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value


@contextmanager
def _replaced(
    model: ir.Model, replace: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> Iterator[None]:
    """Replace the weights of a model, and put the old ones back in the end."""
    held = list(_weights(model))
    try:
        for value, tensor in held:
            value.const_value = replace(tensor)
        yield
    finally:
        for value, tensor in held:
            value.const_value = tensor


def _loaded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return the tensor itself, in memory."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return tensor


def _moved(tensor: ir.TensorProtocol, stream: IO[bytes], location: str) -> ir.TensorProtocol:
    """Append a large tensor to the data file and return the reference to it."""
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes < _SMALLEST_EXTERNAL:
        return _loaded(tensor)
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
    offset = stream.tell()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(stream)  # from file to file, past our memory
    else:
        stream.write(tensor.tobytes())
    return ir.ExternalTensor(
        location,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )


class _Publication:
    """Files that are written under hidden names and get their own ones together.

    Used as a context: an error or Ctrl-C inside removes whatever was written.
    """

    def __init__(self) -> None:
        self._streams: list[IO[bytes]] = []
        self._files: list[tuple[Path, Path]] = []

    def open(self, path: Path) -> IO[bytes]:
        """Open a file that will appear as ``path``; those opened first appear first."""
        hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        stream = hidden.open("xb")
        self._streams.append(stream)
        self._files.append((hidden, path))
        return stream

    def __enter__(self) -> _Publication:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with ExitStack() as closing:
                for stream in self._streams:
                    closing.enter_context(stream)
                if kind is None:
                    self._sync()
            if kind is None:
                self._publish()
        finally:
            for hidden, _ in self._files:
                hidden.unlink(missing_ok=True)  # those published are no longer there

    def _sync(self) -> None:
        for stream in self._streams:
            stream.flush()
            os.fsync(stream.fileno())

    def _publish(self) -> None:
        *data, (_, model) = self._files
        if data:
            # the old model must not be found beside the new data, be it for a moment
            model.unlink(missing_ok=True)
        try:
            for hidden, path in self._files:
                hidden.replace(path)
        except BaseException:
            for _, path in data:
                path.unlink(missing_ok=True)
            raise
        folder = os.open(model.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
