"""Valid models that `ptq` refuses: those quantized already, and those not in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from ptq.errors import UnsupportedError
from ptq.graph.passes.edit import all_nodes, int_attribute, is_op

#: Parts of the names of integer operators, in the standard domain, com.microsoft and elsewhere.
_QUANTIZED_PARTS = ("Quant", "Dequantize", "QLinear", "QOrdered", "Integer", "NBits", "Bnb4")
_QUANTIZED_NAMES = frozenset(
    {"GemmFloat8", "MatMulFpQ4", "QAttention", "QEmbedLayerNormalization", "QGemm", "QMoE"}
)

#: Element types of weights that QuantizeLinear could take only after a conversion.
_OTHER_FLOATS = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
}


def refuse_unsupported(model: ir.Model) -> None:
    """Refuse what a float32 quantizer cannot work on.

    Raises:
        UnsupportedError: the model is quantized already, or most of its weights are float16,
            bfloat16 or float64.
    """
    nodes = list(all_nodes(model))
    quantized = [node for node in nodes if _is_quantized(node)]
    if quantized:
        first = quantized[0]
        output = first.outputs[0].name if first.outputs else ""
        raise UnsupportedError(
            f"the model is quantized already: {len(quantized)} of {len(nodes)} nodes, the first is "
            f"{first.op_type} '{first.name or output}'; give the float model it was made from"
        )
    _refuse_other_floats(model, nodes)


def _refuse_other_floats(model: ir.Model, nodes: list[ir.Node]) -> None:
    elements: Counter[ir.DataType] = Counter()
    for value, tensor in _weights(model, nodes):
        # half-precision storage of a float32 model: a Cast stands behind every weight
        if not _is_cast_to_float32(value):
            elements[tensor.dtype] += tensor.size
    total = elements[ir.DataType.FLOAT] + sum(elements[dtype] for dtype in _OTHER_FLOATS)
    for dtype, name in _OTHER_FLOATS.items():
        if 2 * elements[dtype] > total:
            raise UnsupportedError(
                f"the model is {name}: {elements[dtype] / total:.0%} of its weights are; "
                "convert it to float32 first, or export it so"
            )


def _is_quantized(node: ir.Node) -> bool:
    name = node.op_type
    return name in _QUANTIZED_NAMES or any(part in name for part in _QUANTIZED_PARTS)


def _weights(model: ir.Model, nodes: list[ir.Node]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield matrices and kernels; vectors and numbers say little about what a model computes in."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and len(value.const_value.shape) > 1:
                yield value, value.const_value
    for node in nodes:
        attribute = node.attributes.get("value") if is_op(node, "Constant") else None
        if attribute is not None and not attribute.is_ref():
            tensor = attribute.value
            if len(tensor.shape) > 1:
                yield node.outputs[0], tensor


def _is_cast_to_float32(value: ir.Value) -> bool:
    users = [use.node for use in value.uses()]
    return bool(users) and all(
        is_op(user, "Cast") and int_attribute(user, "to", 0) == ir.DataType.FLOAT for user in users
    )
