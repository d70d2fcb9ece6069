"""Put the weights and biases of sites behind DequantizeLinear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from ptq.errors import CalibrationError
from ptq.graph.passes.edit import constant
from ptq.graph.qdq_writer import Parameters, QdqWriter
from ptq.graph.site import Site, gate_of, name_of
from ptq.graph.site_weights import (
    QuantizeWeight,
    SiteWeight,
    bias_fits,
    quantize_site_weight,
    rounded_alike,
)
from ptq.graph.writer import label
from ptq.numerics.affine import QTensor
from ptq.plan import Plan

#: No weight is rounded beforehand.
NONE: Mapping[str, QTensor] = MappingProxyType({})

#: What determines the codes of a weight: its name, axis, symmetry.
_Key = tuple[str, int | None, bool]

#: Weights by site and key. Without a larger scale for a bias, no plan of activations changes them.
KnownWeights = dict[tuple[str, str, int | None, bool], SiteWeight]


class ParameterEmitter:
    """Quantizes what sites multiply by and add, and counts what it did.

    Attributes:
        weights: the quantized weights, each with its dequantized value.
        tables: the quantized tables: codes, parameters, and the axis of what is looked up.
        biases: how many biases became int32.
        widths: how many numbers the weights and tables have, by their bits.
        found: the quantized weights by name, the first of each.
        widened: names of the sites of which a weight scale was enlarged for the bias.
        coarse: names of the sites of which the bias is rounded by more than half an output step.
    """

    def __init__(  # noqa: PLR0913 - what is known of weights, in three ways
        self,
        writer: QdqWriter,
        plan: Plan,
        quantize_weight: QuantizeWeight,
        *,
        absorb: bool,
        known: KnownWeights,
        rounded: Mapping[str, QTensor] = NONE,
        given: Mapping[str, QTensor] = NONE,
    ) -> None:
        self.writer = writer
        self.scales = {name: np.float32(d.step) for name, d in plan.tensors.items()}
        self.nodes = {n.name: n for n in plan.nodes}
        self.quantize_weight = quantize_weight
        self.absorb = absorb
        self.rounded = rounded
        self.given = given
        self.found: dict[str, QTensor] = {}
        self.known = known
        self.weights: dict[_Key, tuple[QTensor, ir.Value]] = {}
        self.tables: dict[_Key, tuple[ir.Value, Parameters, int | None]] = {}
        self.biases = 0
        self.widths: Counter[int] = Counter()
        self.widened: list[str] = []
        self.coarse: list[str] = []

    def emit(self, site: Site) -> None:
        """Put the weight and the bias of a linear site behind DequantizeLinear."""
        weight, rule = site.weight, site.rule
        assert weight is not None and rule.weight is not None
        bias = self._bias_of(site)
        tensor, dequantized = self._weight(site, weight, bias)
        site.node.replace_input_with(rule.weight, dequantized)
        if bias is None or rule.bias is None:
            return
        scale = (self._input_scale(site) * tensor.qparams.scale).astype(np.float32)
        if site.requantize:
            step = self.scales[name_of(site.outputs[0])]
            if np.any((scale > step) & (bias.reshape(-1) != 0.0)):
                self.coarse.append(site.name)
        site.node.replace_input_with(rule.bias, self._bias(site, bias, scale))

    def emit_table(self, site: Site) -> None:
        """Look up codes in place of floats, and dequantize what was found."""
        weight, node = site.weight, site.node
        assert weight is not None and site.rule.weight is not None
        key = name_of(weight), site.weight_axis, self.nodes[site.name].weight_symmetric
        if key not in self.tables:
            self.tables[key] = self._table(site, weight)
        codes, parameters, axis = self.tables[key]
        output = node.outputs[0]
        readers, name = list(output.uses()), name_of(output)
        node.replace_input_with(site.rule.weight, codes)
        short = label(name)
        output.name = self.writer.fresh(f"{short}/quantized")
        found = self.writer.dequantize(
            output, f"{short}/dequantized", parameters, after=node, axis=axis
        )
        self.writer.hand_over(output, found, readers)
        output.type = codes.type
        found.name = name

    def _table(self, site: Site, weight: ir.Value) -> tuple[ir.Value, Parameters, int | None]:
        """Return codes, parameters, and the axis of the scales in what is looked up."""
        array = constant(weight)
        assert array is not None
        tensor = self._given(site, weight, None, np.float32(1.0))
        if tensor is None:
            tensor = quantize_site_weight(
                site, array, None, np.float32(1.0), self.quantize_weight,
                symmetric=self.nodes[site.name].weight_symmetric,
            ).tensor  # fmt: skip
        self.widths[tensor.bits] += tensor.codes.size
        name, write = label(f"{name_of(weight)}/table"), self.writer.constant_of
        codes = write(f"{name}/quantized", tensor.codes)
        parameters = (
            write(f"{name}/scale", tensor.qparams.scale),
            write(f"{name}/zero_point", tensor.qparams.zero_point),
        )
        return codes, parameters, None if tensor.qparams.axis is None else -1

    def _bias_of(self, site: Site) -> np.ndarray | None:
        """Return the bias, with what an absorbed HardSigmoid adds."""
        bias = constant(site.bias) if site.rule.integer_bias else None
        if bias is None or site.absorbed is None or not self.absorb:
            return bias
        gate = gate_of(site.absorbed)
        return bias if gate is None else (bias + gate.beta / gate.alpha).astype(np.float32)

    def _weight(
        self, site: Site, weight: ir.Value, bias: np.ndarray | None
    ) -> tuple[QTensor, ir.Value]:
        """Return the quantized weight, shared between sites as the float one was."""
        symmetric, input_scale = self.nodes[site.name].weight_symmetric, self._input_scale(site)
        key = name_of(weight), site.weight_axis, symmetric
        shared = self.weights.get(key)
        if shared is not None and bias_fits(bias, input_scale, shared[0]):
            return shared
        tensor = self._given(site, weight, bias, input_scale)
        if tensor is None:
            tensor = self._quantized(site, weight, bias, input_scale, key)
        self.found.setdefault(name_of(weight), tensor)
        self.widths[tensor.bits] += tensor.codes.size
        dequantized = self._dequantized(name_of(weight), tensor, site.node)
        self.weights[key] = tensor, dequantized
        return tensor, dequantized

    def _given(
        self, site: Site, weight: ir.Value, bias: np.ndarray | None, input_scale: np.float32
    ) -> QTensor | None:
        """Return a weight that was given in codes, if it was.

        Raises:
            CalibrationError: it does not fit the site, or the bias not its scales.
        """
        tensor = self.given.get(name_of(weight))
        if tensor is None:
            return None
        array = constant(weight)
        assert array is not None
        if tensor.codes.shape != array.shape or tensor.qparams.axis not in (None, site.weight_axis):
            raise CalibrationError(
                f"weight '{name_of(weight)}' of '{site.name}' was given in codes of shape "
                f"{tensor.codes.shape} with scales along axis {tensor.qparams.axis}; it takes "
                f"{array.shape} and axis {site.weight_axis}"
            )
        if not bias_fits(bias, input_scale, tensor):
            raise CalibrationError(
                f"the bias of '{site.name}' does not fit int32 at the scales that its weight was "
                "given with; keep the node in float, or give larger scales"
            )
        return tensor

    def _quantized(
        self,
        site: Site,
        weight: ir.Value,
        bias: np.ndarray | None,
        input_scale: np.float32,
        key: _Key,
    ) -> QTensor:
        """Return the weight as the quantizer makes it."""
        array = constant(weight)
        assert array is not None
        symmetric = self.nodes[site.name].weight_symmetric
        found = self.known.get((site.name, *key))
        if found is None or found.widened or not bias_fits(bias, input_scale, found.tensor):
            found = quantize_site_weight(
                site, array, bias, input_scale, self.quantize_weight, symmetric=symmetric
            )
            self.known[site.name, *key] = found
        if found.widened:
            self.widened.append(site.name)
        return rounded_alike(found.tensor, self.rounded.get(name_of(weight)), bias, input_scale)

    def _dequantized(self, name: str, tensor: QTensor, before: ir.Node) -> ir.Value:
        params, name, write = tensor.qparams, label(name), self.writer.constant_of
        codes = write(f"{name}/quantized", tensor.codes)
        scale = write(f"{name}/scale", params.scale)
        zero_point = write(f"{name}/zero_point", params.zero_point)
        return self.writer.dequantize(
            codes, f"{name}/dequantized", (scale, zero_point), before=before, axis=params.axis
        )

    def _bias(self, site: Site, bias: np.ndarray, scale: np.ndarray) -> ir.Value:
        assert site.bias is not None
        flat = bias.reshape(-1).astype(np.float64)
        codes = np.rint(flat / scale).astype(np.int32)
        name, write = label(f"{site.bias.name}/{site.name}"), self.writer.constant_of
        self.biases += 1
        quantized = write(f"{name}/quantized", codes.reshape(bias.shape))
        parameters = (
            write(f"{name}/scale", scale),
            write(f"{name}/zero_point", np.zeros(scale.shape, np.int32)),
        )
        return self.writer.dequantize(
            quantized,
            f"{name}/dequantized",
            parameters,
            before=site.node,
            axis=None if scale.ndim == 0 else bias.ndim - 1,
        )

    def _input_scale(self, site: Site) -> np.float32:
        return self.scales[name_of(site.activations[0])]
