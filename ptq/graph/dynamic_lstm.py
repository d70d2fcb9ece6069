"""Turn LSTM into DynamicQuantizeLSTM, which multiplies codes and keeps its state in float."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, int_attribute
from ptq.graph.writer import CONTRIB, GraphWriter, float_array_of, label
from ptq.numerics.affine import QTensor

#: LSTM has so many inputs; the scales and zero points of W and R follow.
_INPUTS = 8

#: Quantizes the weight of one direction: the value it is part of, its reader, the part, the axis.
Quantize = Callable[[ir.Value, ir.Node, Array, int], QTensor]


class DynamicLstm:
    """Rewrites the LSTMs of one model; weights that several share are quantized once."""

    def __init__(self, writer: GraphWriter, quantize: Quantize) -> None:
        self._writer = writer
        self._quantize = quantize
        self._weights: dict[int, tuple[ir.Value, ir.Value, ir.Value]] = {}

    def __len__(self) -> int:
        """Return how many weights were quantized."""
        return len(self._weights)

    def rewrite(self, node: ir.Node) -> str:
        """Replace an LSTM, or return why it stays."""
        if int_attribute(node, "layout", 0):
            return "attribute layout=1; the kernel needs 0"
        x, w, r, *others = node.inputs
        w_array, r_array = float_array_of(w), float_array_of(r)
        if w is None or r is None or w_array is None or r_array is None:
            return "the weights are no float32 constants"
        w_codes, *w_params = self._gates(node, w, w_array)
        r_codes, *r_params = self._gates(node, r, r_array)
        left_out = [None] * (_INPUTS - len(node.inputs))
        names = [f"{label(v.name)}/lstm" if v.name else "" for v in node.outputs]
        results = self._writer.insert_node(
            node,
            "DynamicQuantizeLSTM",
            [x, w_codes, r_codes, *others, *left_out, *w_params, *r_params],
            names,
            {name: a for name, a in node.attributes.items() if name != "layout"},
            domain=CONTRIB,
        )
        self._writer.replace(node, results)
        return ""

    def _gates(
        self, node: ir.Node, value: ir.Value, array: Array
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return codes, scales and zero points of W or R, of all directions."""
        if id(value) not in self._weights:
            parts = [self._quantize(value, node, direction, 0) for direction in array]
            # (gates, inputs) of LSTM is (inputs, gates) here
            codes = self._beside(value, "codes", np.stack([p.codes.T for p in parts]))
            scale = self._beside(value, "scale", np.stack([p.qparams.scale for p in parts]))
            zero_point = np.stack([p.qparams.zero_point for p in parts])
            zero = self._beside(value, "zero_point", zero_point)
            self._weights[id(value)] = codes, scale, zero
        return self._weights[id(value)]

    def _beside(self, value: ir.Value, name: str, array: Array) -> ir.Value:
        assert value.graph is not None
        return self._writer.constant(value.graph, f"{label(value.name)}/{name}", array)
