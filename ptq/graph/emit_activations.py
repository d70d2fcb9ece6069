"""Put QuantizeLinear and DequantizeLinear around the sites, where the plan says."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ptq.graph.clip_codes import clip_codes, params_of, shares_codes
from ptq.graph.emit_gates import gate_step
from ptq.graph.passes.edit import constant
from ptq.graph.qdq_writer import Parameters, QdqWriter
from ptq.graph.site import Site, Sites, clip_range, gate_of, name_of
from ptq.graph.writer import label
from ptq.numerics.affine import quantize
from ptq.plan import Decision, Plan


class ActivationEmitter:
    """Quantizes the activations of sites.

    Attributes:
        scales: the initializer that holds the scale, by quantized activation but constants.
    """

    def __init__(self, writer: QdqWriter, sites: Sites, plan: Plan, *, absorb: bool) -> None:
        self.writer = writer
        self.graph = writer.graph
        self.absorb = absorb
        # by identity: names change while values are replaced
        self.decisions = {id(v): plan.tensors[n] for n, v in sites.quantized().items()}
        self.producer = {id(v): s for s in sites.sites if s.requantize for v in s.outputs}
        self.readers: dict[int, list[Site]] = {}
        for site in sites.sites:
            for value in site.activations:
                self.readers.setdefault(id(value), []).append(site)
        self.codes: dict[int, ir.Value] = {}
        self.scales: dict[str, str] = {}

    def emit(self, value: ir.Value) -> None:
        """Quantize one activation tensor for all its integer readers."""
        decision = self.decisions[id(value)]
        site = self.producer.get(id(value))
        if value.is_initializer():
            self._quantize_constant(value, decision)
        elif site is not None and self._shares_codes(site, decision):
            self._recode(site, value, decision)
        elif site is not None:
            self._quantize_result(site, value, decision)
        else:
            # its producer is in float, and so may other readers be: they keep the exact value
            name, parameters = label(value.name), self._parameters(value, decision)
            codes = self.writer.quantize(value, name, parameters, after=value.producer())
            codes = clip_codes(self.writer, codes, name, (-math.inf, math.inf), decision)
            self.codes[id(value)] = codes
            self._redirect(value, self._dequantized(codes, name, decision, parameters))

    def _quantize_result(self, site: Site, value: ir.Value, decision: Decision) -> None:
        """Requantize what a site computes; everything else reads the dequantized value."""
        name, short = name_of(value), label(value.name)
        parameters = self._parameters(value, decision)
        raw, absorbed = value, site.absorbed if self.absorb and site.rule.clips_codes else None
        readers = list(value.uses())
        if absorbed is not None:
            raw = site.node.outputs[0]
        else:
            value.name = self.writer.fresh(f"{short}/float")
        by = absorbed or site.node
        made = self._made(by, short, decision, parameters)
        codes = self.writer.quantize(raw, short, made, after=raw.producer())
        if not self._moves_codes(site, decision):
            codes = clip_codes(self.writer, codes, short, clip_range(by), decision)
        self.codes[id(value)] = codes
        if not readers and not value.is_graph_output():
            return  # the kernel of a Split wants all of its outputs quantized, read or not
        dequantized = self._dequantized(codes, short, decision, parameters)
        self.writer.hand_over(value, dequantized, readers)
        if absorbed is not None:
            value.name = None
            self.graph.remove(absorbed, safe=True)
        dequantized.name = name

    def _made(
        self, by: ir.Node, name: str, decision: Decision, parameters: Parameters
    ) -> Parameters:
        """Return what the codes are made with, given the operator whose values they stand for."""
        gate = gate_of(by)
        if gate is None or by.op_type == "HardSwish":
            return parameters
        return gate_step(self.writer, name, gate, decision), parameters[1]

    def _shares_codes(self, site: Site, decision: Decision) -> bool:
        """Whether the plan makes another scale or zero point of what the site does."""
        if site.rule.role == "rescale":
            return True
        if site.shift == 0.0 or site.node.op_type == "HardSwish":
            return False
        return shares_codes(decision, self.decisions[id(site.tensor)])

    def _moves_codes(self, site: Site, decision: Decision) -> bool:
        """Whether the codes are some of those that come in, which need no clipping any more."""
        unbounded = clip_range(site.absorbed or site.node) == (-math.inf, math.inf)
        if site.rule.role != "move" or not unbounded or site.node.op_type == "Pad":
            return False
        return shares_codes(decision, self.decisions[id(site.tensor)])

    def _recode(self, site: Site, value: ir.Value, decision: Decision) -> None:
        """Read the codes of the input with the parameters of the output; the node goes."""
        name, short = name_of(value), label(value.name)
        codes, parameters = self.codes[id(site.tensor)], self._parameters(value, decision)
        bounds = clip_range(site.absorbed or site.node)
        codes = clip_codes(self.writer, codes, short, bounds, decision)
        recoded = self._dequantized(codes, short, decision, parameters)
        self.codes[id(value)] = codes
        self.writer.hand_over(value, recoded, list(value.uses()))
        value.name = None
        read = [v for v in site.node.inputs if v is not None and not v.is_initializer()]
        for node in (site.absorbed, site.node):
            if node is not None:
                self.graph.remove(node, safe=True)
        for unread in read:
            before = unread.producer()
            if before is not None and not unread.uses() and not unread.is_graph_output():
                self.graph.remove(before, safe=True)
        recoded.name = name

    def _quantize_constant(self, value: ir.Value, decision: Decision) -> None:
        array = constant(value)
        assert array is not None
        name = label(value.name)
        codes = self.writer.constant_of(f"{name}/quantized", quantize(array, params_of(decision)))
        first = self.readers[id(value)][0].node
        parameters = self._decoding(name, decision, self._parameters(value, decision))
        del self.scales[name_of(value)]  # it belongs to the codes: no search may turn it
        dequantized = self.writer.dequantize(codes, f"{name}/dequantized", parameters, before=first)
        self._redirect(value, dequantized)

    def _redirect(self, value: ir.Value, to: ir.Value) -> None:
        """Let the sites that take a value as an activation read another."""
        for site in self.readers[id(value)]:
            for index, given in enumerate(site.node.inputs):
                if given is value:
                    site.node.replace_input_with(index, to)

    def _dequantized(
        self, codes: ir.Value, name: str, decision: Decision, parameters: Parameters
    ) -> ir.Value:
        decoding = self._decoding(name, decision, parameters)
        return self.writer.dequantize(
            codes, f"{name}/dequantized", decoding, after=codes.producer()
        )

    def _decoding(self, name: str, decision: Decision, parameters: Parameters) -> Parameters:
        """Return what codes are read with, given what they are made with."""
        if decision.decode is None:
            return parameters
        step = np.asarray(decision.decode, np.float32)
        return self.writer.constant_of(f"{name}/decode_scale", step), parameters[1]

    def _parameters(self, value: ir.Value, decision: Decision) -> Parameters:
        """Return the scale and the zero point of an activation, as initializers."""
        params, name = params_of(decision), label(value.name)
        scale = self.writer.constant_of(f"{name}/scale", params.scale)
        zero_point = self.writer.constant_of(f"{name}/zero_point", params.zero_point)
        self.scales[name_of(value)] = scale.name or ""
        return scale, zero_point
