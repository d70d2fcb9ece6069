"""Ask onnxruntime which sites it really runs as integer kernels.

A model full of QuantizeLinear may run entirely in float: the runtime has to recognise each
pattern. So the graph is read back as the runtime rewrote it, and every site is looked up there.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ptq.runtime.session import open_session

#: What onnxruntime's optimizers add to the names of nodes that they move to NHWC or merge.
_MOVED = re.compile(r"^(fused )?(?P<name>.*?)(_nhwc|_token_\d+|/\w+Fusion/?)*$", re.DOTALL)

_INTEGER_KERNELS = frozenset(
    {"QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"}
)

_INTEGER_TYPES = (ir.DataType.INT8, ir.DataType.UINT8)

#: Operators that are neither work nor worth a row: they convert, or carry shapes and constants.
_PLUMBING = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant", "Shape", "Cast"})


@dataclass(frozen=True, slots=True)
class Coverage:
    """What onnxruntime made of a quantized model.

    Attributes:
        integer: operators that run as integer kernels, by type.
        floating: operators that run on floats, by type.
        conversions: QuantizeLinear and DequantizeLinear that are left.
        unfused: names of the sites that should be integer and run in float.
    """

    integer: Counter[str]
    floating: Counter[str]
    conversions: int
    unfused: tuple[str, ...]


def measure_coverage(model: Path, sites: Sequence[str]) -> Coverage:
    """Return what onnxruntime makes of the model at its full optimization.

    Args:
        model: a quantized model file.
        sites: names of the nodes that are meant to run as integer kernels.

    Raises:
        VerificationError: onnxruntime does not load the model.
    """
    with tempfile.TemporaryDirectory(prefix="ptq-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(model, optimized=optimized)
        # a graph that the runtime wrote: its external data is beside the model, and not needed here
        graph = ir.load(optimized).graph
    return _read(graph, frozenset(sites))


def _read(graph: ir.Graph, sites: frozenset[str]) -> Coverage:
    codes = {v.name for v in graph.initializers.values() if v.dtype in _INTEGER_TYPES}
    codes |= {v.name for v in graph.inputs if v.dtype in _INTEGER_TYPES}
    integer: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    unfused: list[str] = []
    conversions = 0
    for node in graph:
        names = _names(node.name or "")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            conversions += 1
        if node.op_type == "QuantizeLinear":
            codes.update(v.name for v in node.outputs)
        elif _is_integer_kernel(node.op_type):
            integer[node.op_type] += 1
            if node.op_type not in ("QGemm", "MatMulIntegerToFloat") or _puts_out_codes(node):
                codes.update(v.name for v in node.outputs)
        elif node.op_type in _PLUMBING:
            pass
        elif node.inputs and node.inputs[0] is not None and node.inputs[0].name in codes:
            integer[node.op_type] += 1
            codes.update(v.name for v in node.outputs)
        else:
            floating[node.op_type] += 1
            unfused += names & sites
    return Coverage(integer, floating, conversions, tuple(unfused))


def _names(name: str) -> frozenset[str]:
    """Return what a node may have been called before the optimizers renamed it."""
    moved = _MOVED.match(name)
    return frozenset({name, moved["name"]} if moved else {name})


def _is_integer_kernel(op_type: str) -> bool:
    return op_type.startswith("QLinear") or op_type in _INTEGER_KERNELS


def _puts_out_codes(node: ir.Node) -> bool:
    """Whether a QGemm requantizes: its last inputs are then the output's scale and zero point."""
    return node.op_type == "QGemm" and len(node.inputs) > 7 and node.inputs[7] is not None
