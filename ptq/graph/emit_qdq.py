"""Write a plan into the graph: QuantizeLinear and DequantizeLinear where, and only where, it says.

The shape of what is written follows what onnxruntime fuses (KERNELS section 1): every site reads
its activations, weight and bias through DequantizeLinear and, where its kernel requantizes, is
followed at once by QuantizeLinear.

Names survive: what the rest of the graph reads as ``t`` is still called ``t``, now the
dequantized value; the float value before it becomes ``t/float``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.errors import CalibrationError, PtqError
from ptq.graph.guard import claimed, merging_readers, requantized
from ptq.graph.sites import Site, Sites, clip_range
from ptq.numerics.affine import QParams, QTensor, quantize
from ptq.numerics.pairs import fit_pairs, orders_of
from ptq.numerics.qtype import QType
from ptq.plan import Decision, Plan

#: Largest bias code. The accumulator adds up to 2^30 more before it would overflow int32.
_BIAS_LIMIT = 1 << 30

#: Converters name tensors after whole call stacks, and every quantized tensor gives its name to
#: six others.
_LONGEST_LABEL = 48


#: How one weight is quantized: values, output-channel axis, symmetric or not.
QuantizeWeight = Callable[[np.ndarray, int, bool], QTensor]


@dataclass(frozen=True, slots=True)
class Emitted:
    """What emitting did.

    Attributes:
        weights: how many weights were quantized.
        biases: how many biases became int32.
        widened: names of the nodes of which a weight scale was enlarged, because a bias would not
            have fitted int32.
        coarse: names of the nodes of which the bias is rounded by more than half a step of the
            output.
        scales: the initializer that holds the scale, by quantized activation but constants.
    """

    weights: int
    biases: int
    widened: tuple[str, ...]
    coarse: tuple[str, ...]
    scales: dict[str, str]


def emit_qdq(
    model: ir.Model,
    sites: Sites,
    plan: Plan,
    quantize_weight: QuantizeWeight,
    *,
    absorb: bool = True,
) -> Emitted:
    """Insert the plan's QuantizeLinear and DequantizeLinear; the model is changed in place.

    Args:
        model: the normalized model that the sites were found in.
        sites: what becomes integer.
        plan: scale and zero point of every activation tensor of the sites.
        quantize_weight: how weights are quantized.
        absorb: whether QuantizeLinear takes over from Relu and Clip. Not so for a search that turns
            the scales afterwards: which codes their bounds are depends on the scale.

    Raises:
        CalibrationError: a weight is not finite.
    """
    emitter = _Emitter(model, sites, plan, absorb=absorb)
    for site in sites.sites:
        if site.rule.role == "linear":
            emitter.quantize_parameters(site, quantize_weight)
    for value in sites.quantized().values():
        emitter.quantize_activation(value)
    emitter.keep_apart(sites)
    emitter.drop_unused_initializers()
    _forget_inner_types(model.graph)
    return emitter.emitted()


class _Emitter:
    """Holds the graph while it is rewritten, and the names that are taken."""

    def __init__(self, model: ir.Model, sites: Sites, plan: Plan, *, absorb: bool) -> None:
        self.graph = model.graph
        self.plan = plan
        self.absorb = absorb
        self.producer = {id(v): s for s in sites.sites if s.requantize for v in s.outputs}
        self.readers: dict[int, list[Site]] = {}
        for site in sites.sites:
            for value in site.activations:
                self.readers.setdefault(id(value), []).append(site)
        self.symmetric = {n.name: n.weight_symmetric for n in plan.nodes}
        self.names = _names(model.graph)
        self.weights: dict[tuple[str, int | None, bool], tuple[QTensor, ir.Value]] = {}
        self.scales: dict[str, str] = {}
        self.biases = 0
        self.widened: list[str] = []
        self.coarse: list[str] = []

    def emitted(self) -> Emitted:
        return Emitted(
            weights=len(self.weights),
            biases=self.biases,
            widened=tuple(self.widened),
            coarse=tuple(self.coarse),
            scales=self.scales,
        )

    # -- parameters ---------------------------------------------------------------------------

    def quantize_parameters(self, site: Site, quantize_weight: QuantizeWeight) -> None:
        """Put the weight and the bias of a linear site behind DequantizeLinear."""
        weight, rule = site.weight, site.rule
        assert weight is not None and rule.weight is not None
        input_scale = np.float32(self._decision(site.activations[0]).scale)
        bias = _array(site.bias)
        tensor, dequantized = self._weight(site, weight, bias, quantize_weight)
        site.node.replace_input_with(rule.weight, dequantized)
        if bias is not None and rule.bias is not None:
            scale = (input_scale * tensor.qparams.scale).astype(np.float32)
            if site.requantize:
                step = self._decision(site.outputs[0]).scale
                if np.any((scale > step) & (bias.reshape(-1) != 0.0)):
                    self.coarse.append(site.name)
            site.node.replace_input_with(rule.bias, self._bias(site, bias, scale))

    def _weight(
        self,
        site: Site,
        weight: ir.Value,
        bias: np.ndarray | None,
        quantize_weight: QuantizeWeight,
    ) -> tuple[QTensor, ir.Value]:
        """Return the quantized weight, shared between sites as the float one was."""
        symmetric, axis = self.symmetric[site.name], site.weight_axis
        input_scale = np.float32(self._decision(site.activations[0]).scale)
        key = weight.name or "", axis, symmetric
        shared = self.weights.get(key)
        if shared is not None and _bias_fits(bias, input_scale, shared[0]):
            return shared
        array = _array(weight)
        assert array is not None
        try:
            if axis is None:
                tensor = _of_one_channel(quantize_weight(array[np.newaxis], 0, symmetric))
            else:
                tensor = quantize_weight(array, axis, symmetric)
        except PtqError as error:
            raise CalibrationError(f"weight '{weight.name}' of '{site.name}': {error}") from error
        if bias is not None and not _bias_fits(bias, input_scale, tensor):
            tensor = _widened(array, bias, input_scale, tensor)
            self.widened.append(site.name)
        tensor = unsaturated(site, array, tensor)
        dequantized = self._dequantized_weight(weight.name or "", tensor, site.node)
        self.weights[key] = tensor, dequantized
        return tensor, dequantized

    def _dequantized_weight(self, name: str, tensor: QTensor, before: ir.Node) -> ir.Value:
        params = tensor.qparams
        name = _label(name)
        codes = self._constant(f"{name}/quantized", tensor.codes, params.qtype)
        scale = self._constant(f"{name}/scale", params.scale)
        zero_point = self._constant(f"{name}/zero_point", params.zero_point, params.qtype)
        return self._dequantize(
            codes, (scale, zero_point), f"{name}/dequantized", before=before, axis=params.axis
        )

    def _bias(self, site: Site, bias: np.ndarray, scale: np.ndarray) -> ir.Value:
        assert site.bias is not None
        flat = bias.reshape(-1).astype(np.float64)
        codes = np.rint(flat / scale).astype(np.int32)
        name = _label(f"{site.bias.name}/{site.name}")
        self.biases += 1
        return self._dequantize(
            self._constant(f"{name}/quantized", codes.reshape(bias.shape)),
            (
                self._constant(f"{name}/scale", scale),
                self._constant(f"{name}/zero_point", np.zeros(scale.shape, np.int32)),
            ),
            f"{name}/dequantized",
            before=site.node,
            axis=None if scale.ndim == 0 else bias.ndim - 1,
        )

    def keep_apart(self, sites: Sites) -> None:
        """Keep onnxruntime from rewriting what it would then not run as the plan says.

        A Sum is what its optimizers do not look through; of one operand, it is the value itself.
        """
        for reader, index in list(merging_readers(sites)):
            if reader.op_type == "Add":
                reader.op_type = "Sum"
            else:
                self._insert_sum(reader, index)
        for node in list(requantized(self.graph)):
            self._insert_sum(node, 0)
        for node in list(claimed(self.graph, self.plan.integer_nodes)):
            self._insert_sum(node, 1 if node.op_type == "Where" else 0)

    def _insert_sum(self, reader: ir.Node, index: int) -> None:
        value = reader.inputs[index]
        assert value is not None
        name = _label(value.name or "")
        node = ir.node("Sum", [value], name=self._fresh(f"{name}/Sum"))
        apart = self._placed(node, f"{name}/apart", value.dtype, before=reader)
        reader.replace_input_with(index, apart)

    # -- activations --------------------------------------------------------------------------

    def quantize_activation(self, value: ir.Value) -> None:
        """Quantize one activation tensor for all its integer readers."""
        decision = self._decision(value)
        site = self.producer.get(id(value))
        if value.is_initializer():
            self._quantize_constant(value, decision)
        elif site is not None:
            self._quantize_result(site, value, decision)
        else:
            # its producer is in float, and so may other readers be: they keep the exact value
            name = _label(value.name or "")
            qparams = self._qparams(value, decision)
            quantized = self._quantize(value, name, qparams, after=value.producer())
            dequantized = self._dequantize_activation(quantized, name, qparams)
            self._redirect(value, dequantized)

    def _quantize_result(self, site: Site, value: ir.Value, decision: Decision) -> None:
        """Requantize what a site computes; everything else reads the dequantized value."""
        name = value.name or ""
        label = _label(name)
        qparams = self._qparams(value, decision)
        raw, clip = value, site.absorbed if self.absorb else None
        readers = [(node, index) for node, index in value.uses()]
        if clip is not None:
            raw = site.node.outputs[0]
        else:
            value.name = self._fresh(f"{label}/float")
        quantized = self._quantize(raw, label, qparams, after=raw.producer())
        if clip is not None:
            quantized = self._clip_codes(quantized, label, clip_range(clip), decision)
        if not readers and not value.is_graph_output():
            return  # the kernel of a Split wants all of its outputs quantized, read or not
        dequantized = self._dequantize_activation(quantized, label, qparams)
        dequantized.shape, dequantized.type = value.shape, value.type
        for node, index in readers:
            node.replace_input_with(index, dequantized)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = dequantized
        if clip is not None:
            value.name = None
            self.graph.remove(clip, safe=True)
        dequantized.name = name

    def _clip_codes(
        self, codes: ir.Value, name: str, bounds: tuple[float, float], decision: Decision
    ) -> ir.Value:
        """Clip on the codes, unless saturation does it already.

        Rounding is monotone, so that clipping before and after it give the same code.
        """
        qtype = QType.parse(decision.qtype)
        params = _params(decision)
        finite = np.clip(np.asarray(bounds), -3e38, 3e38).astype(np.float32)
        lo, hi = (int(c) for c in quantize(finite, params))
        if (lo, hi) == (qtype.qmin, qtype.qmax):
            return codes
        bounds_as_codes = [
            self._constant(f"{name}/{end}", np.asarray(code, qtype.storage), qtype)
            for end, code in (("clip_lo", lo), ("clip_hi", hi))
        ]
        node = ir.node("Clip", [codes, *bounds_as_codes], name=self._fresh(f"{name}/Clip"))
        return self._placed(node, f"{name}/clipped", codes.dtype, after=codes.producer())

    def _quantize_constant(self, value: ir.Value, decision: Decision) -> None:
        array = _array(value)
        assert array is not None
        name = _label(value.name or "")
        params = _params(decision)
        codes = self._constant(f"{name}/quantized", quantize(array, params), params.qtype)
        first = self.readers[id(value)][0].node
        qparams = self._qparams(value, decision)
        del self.scales[value.name or ""]  # it belongs to the codes: no search may turn it
        dequantized = self._dequantize(codes, qparams, f"{name}/dequantized", before=first)
        self._redirect(value, dequantized)

    def _redirect(self, value: ir.Value, to: ir.Value) -> None:
        for site in self.readers[id(value)]:
            for index, given in enumerate(site.node.inputs):
                if given is value:
                    site.node.replace_input_with(index, to)

    def _quantize(
        self,
        value: ir.Value,
        name: str,
        qparams: tuple[ir.Value, ir.Value],
        *,
        after: ir.Node | None,
    ) -> ir.Value:
        node = ir.node("QuantizeLinear", [value, *qparams], name=self._fresh(f"{name}/Q"))
        return self._placed(node, f"{name}/quantized", qparams[1].dtype, after=after)

    def _dequantize_activation(
        self, codes: ir.Value, name: str, qparams: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        return self._dequantize(codes, qparams, f"{name}/dequantized", after=codes.producer())

    def _qparams(self, value: ir.Value, decision: Decision) -> tuple[ir.Value, ir.Value]:
        """Return the scale and the zero point of an activation, as initializers."""
        params, label = _params(decision), _label(value.name or "")
        scale = self._constant(f"{label}/scale", params.scale)
        zero_point = self._constant(f"{label}/zero_point", params.zero_point, params.qtype)
        self.scales[value.name or ""] = scale.name or ""
        return scale, zero_point

    def _decision(self, value: ir.Value) -> Decision:
        return self.plan.tensors[value.name or ""]

    # -- building -----------------------------------------------------------------------------

    def _dequantize(
        self,
        codes: ir.Value,
        qparams: tuple[ir.Value, ir.Value],
        name: str,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        axis: int | None = None,
    ) -> ir.Value:
        node = ir.node(
            "DequantizeLinear",
            [codes, *qparams],
            attributes=None if axis is None else {"axis": axis},
            name=self._fresh(f"{name}/DQ"),
        )
        return self._placed(node, name, ir.DataType.FLOAT, before=before, after=after)

    def _placed(
        self,
        node: ir.Node,
        name: str,
        dtype: ir.DataType | None,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Insert the node and name its output."""
        output = node.outputs[0]
        output.name = self._fresh(name)
        if dtype is not None:
            output.dtype = dtype
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return output

    def _constant(self, name: str, array: np.ndarray, qtype: QType | None = None) -> ir.Value:
        """Register an initializer; codes of fewer than 8 bits get the type of their width."""
        tensor = ir.tensor(array, name=self._fresh(name))
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def _fresh(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self.names:
            number += 1
            candidate = f"{name}_{number}"
        self.names.add(candidate)
        return candidate

    def drop_unused_initializers(self) -> None:
        outputs = {id(v) for v in self.graph.outputs}
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and id(value) not in outputs:
                del self.graph.initializers[name]


def _params(decision: Decision) -> QParams:
    qtype = QType.parse(decision.qtype)
    return QParams(
        scale=np.asarray(decision.scale, np.float32),
        zero_point=np.asarray(decision.zero_point, qtype.storage),
        qtype=qtype,
        axis=None,
    )


def _of_one_channel(tensor: QTensor) -> QTensor:
    """Return a weight with one scale, quantized as the only channel of another."""
    params = tensor.qparams
    if params.axis is not None:
        params = QParams(params.scale.reshape(()), params.zero_point.reshape(()), params.qtype)
    return QTensor(tensor.codes[0], params)


def unsaturated(site: Site, array: np.ndarray, tensor: QTensor) -> QTensor:
    """Return the weight with codes of which no kernel of the site saturates.

    Only the kernel for one output channel a group in two dimensions is exact with all codes.
    """
    exact = site.depthwise and array.ndim == 4 and len(array) == site.node.attributes["group"].value
    if not site.rule.saturates or exact:
        return tensor
    convolution = site.node.op_type == "Conv"
    if site.weight_axis is not None:
        orders = orders_of(array.ndim, site.weight_axis, convolution=convolution)
        return fit_pairs(array, tensor, orders)
    # a batch of matrices: all of their columns count alike
    columns = np.swapaxes(array, -1, -2)
    flat = QTensor(np.swapaxes(tensor.codes, -1, -2).reshape(-1, array.shape[-2]), tensor.qparams)
    fitted = fit_pairs(columns.reshape(flat.codes.shape), flat, orders_of(2, 0, convolution=False))
    codes = np.swapaxes(fitted.codes.reshape(columns.shape), -1, -2)
    return QTensor(codes, fitted.qparams)


def _bias_fits(bias: np.ndarray | None, input_scale: np.float32, weight: QTensor) -> bool:
    if bias is None:
        return True
    step = input_scale.astype(np.float64) * weight.qparams.scale
    return bool(np.all(np.abs(bias.reshape(-1)) <= step * _BIAS_LIMIT))


def _widened(
    weight: np.ndarray, bias: np.ndarray, input_scale: np.float32, tensor: QTensor
) -> QTensor:
    """Quantize the weight again, at scales with which the bias fits (ALGORITHMS trap T4).

    It happens to channels whose weights are all but zero: the coarser step costs them nothing.
    """
    params = tensor.qparams
    needed = np.abs(bias.reshape(-1)) / (np.float64(input_scale) * _BIAS_LIMIT)
    floor = needed if params.axis is not None else needed.max()
    scale = np.maximum(params.scale, np.nextafter(floor.astype(np.float32), np.float32(np.inf)))
    wider = QParams(scale, params.zero_point, params.qtype, params.axis, params.block_size)
    return QTensor(quantize(weight, wider), wider)


def _array(value: ir.Value | None) -> np.ndarray | None:
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def _forget_inner_types(graph: ir.Graph) -> None:
    """Drop what inference finds anew at load: in small models it outweighs the weights saved."""
    kept = {id(v) for v in (*graph.inputs, *graph.outputs)}
    produced = [v for node in graph for v in node.outputs]
    # of an initializer, the tensor says it
    for value in (*produced, *graph.initializers.values()):
        if id(value) not in kept:
            value.shape = value.type = None


def _label(name: str) -> str:
    """Return a name to build others from; a long one is cut, and told apart by its digest."""
    if len(name) <= _LONGEST_LABEL:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_LABEL - 9]}~{digest}"


def _names(graph: ir.Graph) -> set[str]:
    taken: set[str] = set(graph.initializers)
    taken.update(v.name for v in graph.inputs if v.name)
    for inner in graph.subgraphs():
        taken.update(inner.initializers)
        taken.update(v.name for v in inner.inputs if v.name)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        taken.update(v.name for v in node.outputs if v.name)
        taken.add(node.name or "")
    return taken
