"""Say why onnxruntime runs a node of a quantized model in float, from what stands around it.

A reason is general up to its first colon, so that equal ones can be counted; details follow.
"""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.passes.edit import text_attribute

#: Operators whose data onnxruntime only moves: codes pass through if the scale stays.
MOVES = frozenset(
    {"DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "Pad", "Reshape"}
    | {"Resize", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)

#: Operators with integer kernels (KERNELS section 1), by how many inputs are data; 0 for all.
_OPERANDS = {
    **dict.fromkeys(MOVES, 1),
    **dict.fromkeys(("Add", "Conv", "Gemm", "MatMul", "Mul"), 2),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"), 1),
    **dict.fromkeys(("ArgMax", "Clip", "ReduceMax", "ReduceMin", "Relu"), 1),
    "Concat": 0,
    "LSTM": 1,
    "Where": 3,
}

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

#: These have an integer kernel that puts out floats.
_NO_OUTPUT_NEEDED = frozenset({"Gemm", "MatMul", "ArgMax", "LSTM"})

#: What a kernel may be called that is its operator, merged with what follows it.
_MERGED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}

NO_KERNEL = "onnxruntime has no integer kernel for it"

_EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)


def why_float(node: ir.Node, kernel: str) -> str:
    """Return what is missing around a node that runs as a float kernel.

    Args:
        node: a node of the quantized model, not of the optimized graph.
        kernel: the operator type that it became.
    """
    op_type = _MERGED.get(kernel, kernel)
    if node.op_type not in _OPERANDS or op_type not in _OPERANDS:
        return NO_KERNEL
    if node.op_type == "LSTM":
        return "its weights are not quantized: the integer kernel is DynamicQuantizeLSTM"
    mode = text_attribute(node, "mode", "nearest")
    if node.op_type == "Resize" and mode != "nearest":
        return f"onnxruntime has no integer kernel for it: its mode is {mode}"
    return _inputs(node) or _outputs(node) or _signed(node) or "onnxruntime does not fuse it"


def _inputs(node: ir.Node) -> str:
    operands = _operands(node)
    codes = [_codes(v) for v in operands]
    if not any(codes):
        return "its input is not quantized" if len(codes) == 1 else "its inputs are not quantized"
    for value, dtype in zip(operands, codes, strict=True):
        if dtype is None:
            weight = node.op_type in _WEIGHTED and value is operands[-1]
            which = "its weight" if weight else "one operand"
            return f"{which} is not quantized: '{value.name}'"
        if dtype not in _EIGHT_BITS:
            return f"it reads codes of {dtype.name.lower()}, not of 8 bits: '{value.name}'"
    return ""


def _outputs(node: ir.Node) -> str:
    if node.op_type in _NO_OUTPUT_NEEDED:
        return ""
    value = node.outputs[0]
    uses = [use.node for use in value.uses()]
    quantizers = [n for n in uses if n.op_type == "QuantizeLinear"]
    if quantizers and len(uses) > 1:
        return "its output is read as float, too, before it is quantized"
    if not quantizers:
        return _unquantized(uses)
    dtype = _quantized_dtype(quantizers[0])
    if dtype is not None and dtype not in _EIGHT_BITS:
        return f"it puts out codes of {dtype.name.lower()}, not of 8 bits"
    if node.op_type in MOVES and _scale_before(node) != _scale_name(quantizers[0]):
        return "its output has another scale than its input"
    return ""


def _signed(node: ir.Node) -> str:
    """Say that activations have signs: onnxruntime makes codes unsigned only if they are read once.

    Then a weight with signs, or an operand without, finds no kernel (KERNELS, hazard 1).
    """
    operands = _operands(node)[: 1 if node.op_type in _WEIGHTED else None]
    if any(_codes(v) == ir.DataType.INT8 for v in operands):
        return "its activations are int8: onnxruntime fuses it for uint8"
    return ""


def _unquantized(uses: list[ir.Node]) -> str:
    if len(uses) == 1 and uses[0].op_type in ("Relu", "Clip"):
        after = uses[0].outputs[0]
        if any(use.node.op_type == "QuantizeLinear" for use in after.uses()):
            return f"the {uses[0].op_type} before its QuantizeLinear is not absorbed"
    return "its output has no QuantizeLinear"


def _operands(node: ir.Node) -> list[ir.Value]:
    count = _OPERANDS[node.op_type] or len(node.inputs)
    first = 1 if node.op_type == "Where" else 0
    return [v for v in node.inputs[first:count] if v is not None]


def _codes(value: ir.Value) -> ir.DataType | None:
    """Return the type of the codes that a value is dequantized from; ``None`` if it is not."""
    source = _dequantizer(value)
    if source is None:
        return None
    codes = source.inputs[0]
    if codes is None or codes.dtype is not None:
        return None if codes is None else codes.dtype
    maker = codes.producer()
    while maker is not None and maker.op_type in MOVES | {"Clip"} and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    if maker is not None and maker.op_type == "QuantizeLinear":
        return _quantized_dtype(maker)
    return ir.DataType.UINT8


def _dequantizer(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    # onnxruntime moves the DequantizeLinear behind what only moves data
    while node is not None and node.op_type in MOVES:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _quantized_dtype(quantizer: ir.Node) -> ir.DataType | None:
    if "output_dtype" in quantizer.attributes:
        return ir.DataType(quantizer.attributes["output_dtype"].as_int())
    zero_point = quantizer.inputs[2] if len(quantizer.inputs) > 2 else None
    return ir.DataType.UINT8 if zero_point is None else zero_point.dtype


def _scale_before(node: ir.Node) -> str | None:
    source = _dequantizer(node.inputs[0])
    return None if source is None else _scale_name(source)


def _scale_name(node: ir.Node) -> str | None:
    scale = node.inputs[1]
    return None if scale is None else scale.name
