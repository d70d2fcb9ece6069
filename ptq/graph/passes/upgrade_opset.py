"""Bring the model to the opset that quantization needs."""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx_ir as ir

from ptq.errors import UnsupportedError
from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.opset_gaps import after_conversion, before_conversion
from ptq.graph.passes.skeleton import Skeleton, quiet

#: DequantizeLinear is per axis from opset 13; 4- and 16-bit types and blocks come with 21.
TARGET_OPSET = 21

#: The newest opset that onnxruntime 1.31 runs.
NEWEST_OPSET = 26


#: Where operators wait that onnxruntime has in the standard domain and onnx does not know.
_UNKNOWN = "ptq.unknown"


class UpgradeOpset(Rewrite):
    """Convert a model of an older opset to opset 21; newer ones are left as they are."""

    subject: ClassVar[str] = "opset"
    verb: ClassVar[str] = "versions up"

    def apply(self, model: ir.Model) -> int:
        """Convert, and return by how many versions.

        Raises:
            UnsupportedError: the opset is newer than onnxruntime runs, or onnx cannot convert it.
        """
        opset = model.opset_imports.get("")
        if opset is None:
            return 0
        if opset > NEWEST_OPSET:
            raise UnsupportedError(
                f"the model uses opset {opset}, onnxruntime runs up to {NEWEST_OPSET}; "
                f"export it with opset {TARGET_OPSET}"
            )
        if opset >= TARGET_OPSET:
            return 0
        before_conversion(model, opset)
        _convert(model, opset)
        after_conversion(model, opset)
        return TARGET_OPSET - opset

    def note(self, count: int) -> str:
        """Return the versions before and after."""
        return f"{self.subject}: {TARGET_OPSET - count} converted to {TARGET_OPSET}"


def _convert(model: ir.Model, opset: int) -> None:
    import onnx.shape_inference
    import onnx.version_converter

    _move_unknown(model.graph, "", _UNKNOWN)
    skeleton = Skeleton(model)
    # before IR version 4 onnx wants the initializers among the inputs
    skeleton.proto.ir_version = max(skeleton.proto.ir_version, 4)
    try:
        converted = onnx.version_converter.convert_version(skeleton.proto, TARGET_OPSET)
    except (
        RuntimeError,
        ValueError,
        onnx.version_converter.ConvertError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise UnsupportedError(
            f"the model cannot be converted from opset {opset} to {TARGET_OPSET}: {reason}; "
            f"export it with opset {TARGET_OPSET}"
        ) from error
    with quiet():
        newer = ir.from_proto(converted)
    skeleton.restore(newer)
    _check_signature(model.graph, newer.graph)
    _move_unknown(newer.graph, _UNKNOWN, "")
    newer.graph.opset_imports.pop(_UNKNOWN, None)
    model.graph = newer.graph


def _move_unknown(graph: ir.Graph, old: str, new: str) -> None:
    """Move operators that onnx does not know to another domain, where it leaves them alone."""
    for node in graph.all_nodes():
        if node.domain == old and not onnx.defs.has(node.op_type):
            node.domain = new
            graph.opset_imports.setdefault(new, 1)


def _check_signature(old: ir.Graph, new: ir.Graph) -> None:
    for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        names = [value.name for value in before], [value.name for value in after]
        assert names[0] == names[1], f"the conversion renamed {names[0]} to {names[1]}"
