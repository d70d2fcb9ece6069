"""Write a plan into the graph: QuantizeLinear and DequantizeLinear where, and only where, it says.

The shape of what is written follows what onnxruntime fuses (KERNELS section 1): every site reads
its activations, weight and bias through DequantizeLinear and, where its kernel requantizes, is
followed at once by QuantizeLinear.

Names survive: what the rest of the graph reads as ``t`` is still called ``t``, now the
dequantized value; the float value before it becomes ``t/float``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import onnx_ir as ir

from ptq.graph.emit_activations import ActivationEmitter
from ptq.graph.emit_gates import gates_of, open_gates
from ptq.graph.emit_parameters import NONE, KnownWeights, ParameterEmitter
from ptq.graph.guard import claimed, merging_readers, requantized
from ptq.graph.qdq_writer import QdqWriter
from ptq.graph.site import Sites
from ptq.graph.site_weights import QuantizeWeight
from ptq.graph.sum_before_norm import sum_before_norm
from ptq.graph.writer import label
from ptq.numerics.affine import QTensor
from ptq.numerics.coding import Coding
from ptq.plan import Plan

__all__ = ["Emitted", "KnownWeights", "QuantizeWeight", "emit_qdq"]


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
        tensors: the weights in codes, by name.
        widths: how many numbers the weights have, by their bits.
        coding: how far an entropy coder would go with the weights, where that was asked.
    """

    weights: int
    biases: int
    widened: tuple[str, ...]
    coarse: tuple[str, ...]
    scales: dict[str, str]
    tensors: Mapping[str, QTensor] = field(default_factory=dict)
    widths: Mapping[int, int] = field(default_factory=dict)
    coding: Coding | None = None


def emit_qdq(  # noqa: PLR0913 - a graph, what to write into it, and how
    model: ir.Model,
    sites: Sites,
    plan: Plan,
    quantize_weight: QuantizeWeight,
    *,
    absorb: bool = True,
    guard: bool = True,
    rounded: Mapping[str, QTensor] = NONE,
    given: Mapping[str, QTensor] = NONE,
    known: KnownWeights | None = None,
) -> Emitted:
    """Insert the plan's QuantizeLinear and DequantizeLinear; the model is changed in place.

    Args:
        model: the normalized model that the sites were found in.
        sites: what becomes integer.
        plan: scale and zero point of every activation tensor of the sites.
        quantize_weight: how weights are quantized.
        absorb: whether QuantizeLinear takes over from Relu and Clip. Not so for a search that turns
            the scales afterwards: which codes their bounds are depends on the scale.
        guard: whether to keep apart what onnxruntime's optimizers would rewrite.
        rounded: codes to write for some weights in place of those that ``quantize_weight`` gives,
            wherever it gives the same scales, by name.
        given: weights to write just as they are, codes and scales, in place of quantizing them: a
            trained model brings both. By name.
        known: weights that were quantized for other plans; those that are quantized here are added.

    Raises:
        CalibrationError: a weight is not finite, or one that is given does not fit.
    """
    writer = QdqWriter(model)
    weights = {} if known is None else known
    parameters = ParameterEmitter(
        writer, plan, quantize_weight, absorb=absorb, known=weights, rounded=rounded, given=given
    )
    activations = ActivationEmitter(writer, sites, plan, absorb=absorb)
    gates = gates_of(sites, plan)
    for site in sites.sites:
        if site.rule.role == "linear":
            parameters.emit(site)
    for value in sites.quantized().values():
        activations.emit(value)
    for site in sites.sites:
        if site.rule.role == "table":
            parameters.emit_table(site)
    added = open_gates(writer, gates, activations.codes)
    if guard:
        sum_before_norm(model.graph)
        _keep_apart(writer, sites, plan.integer_nodes | added)
    _drop_unused_initializers(model.graph)
    _forget_inner_types(model.graph)
    return Emitted(
        weights=len(parameters.weights) + len(parameters.tables),
        biases=parameters.biases,
        widened=tuple(parameters.widened),
        coarse=tuple(parameters.coarse),
        scales=activations.scales,
        tensors=parameters.found,
        widths=parameters.widths,
    )


def _keep_apart(writer: QdqWriter, sites: Sites, integer: Set[str]) -> None:
    """Keep onnxruntime from rewriting what it would then not run as the plan says.

    A Sum is what its optimizers do not look through; of one operand, it is the value itself.
    """
    for reader, index in list(merging_readers(sites)):
        if reader.op_type == "Add":
            reader.op_type = "Sum"
        else:
            _insert_sum(writer, reader, index)
    for node in list(requantized(writer.graph)):
        _insert_sum(writer, node, 0)
    for node in list(claimed(writer.graph, integer)):
        _insert_sum(writer, node, 1 if node.op_type == "Where" else 0)


def _insert_sum(writer: QdqWriter, reader: ir.Node, index: int) -> None:
    value = reader.inputs[index]
    assert value is not None
    name = label(value.name)
    node = ir.node("Sum", [value], name=writer.fresh(f"{name}/Sum"))
    apart = writer.place(node, f"{name}/apart", value.dtype, before=reader)
    reader.replace_input_with(index, apart)


def _drop_unused_initializers(graph: ir.Graph) -> None:
    outputs = {id(v) for v in graph.outputs}
    for name, value in list(graph.initializers.items()):
        if not value.uses() and id(value) not in outputs:
            del graph.initializers[name]


def _forget_inner_types(graph: ir.Graph) -> None:
    """Drop what inference finds anew at load: in small models it outweighs the weights saved."""
    kept = {id(v) for v in (*graph.inputs, *graph.outputs)}
    produced = [v for node in graph for v in node.outputs]
    # of an initializer, the tensor says it
    for value in (*produced, *graph.initializers.values()):
        if id(value) not in kept:
            value.shape = value.type = None
