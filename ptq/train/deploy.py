"""What an integer model is made of after training: read off the quantizers, not derived anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import onnx_ir as ir

from ptq.errors import VerificationError
from ptq.graph.biases import place_of_bias
from ptq.graph.held import values_by_name
from ptq.graph.passes.edit import constant, input_at
from ptq.graph.save import to_bytes
from ptq.graph.site import Sites, name_of
from ptq.graph.site_weights import BIAS_LIMIT, unsaturated
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.plan import Decision, Plan
from ptq.plan.replace import with_decisions
from ptq.runtime.session import open_session, run
from ptq.train.estimators import resolve
from ptq.train.fakequant.base import Faked
from ptq.train.graphs import inlined
from ptq.train.network import Network
from ptq.train.reverse import remove_unread

#: How far from an integer a code may be: float32 is exact to 2^-24, and there are up to 255 codes.
_CODE_TOLERANCE = 1e-3

#: How far from the limit a bias stays.
_ROOM = np.float32(2.0)


@dataclass(frozen=True, slots=True, eq=False)
class Deployed:
    """What the integer model gets of a trained network.

    Attributes:
        decisions: of activations with a scale of their own, by tensor (`ptq.plan.replace`).
        weights: codes and scales, by name.
        shifts: what to add to biases, by node.
    """

    decisions: Mapping[str, Decision]
    weights: Mapping[str, QTensor]
    shifts: Mapping[str, F64]


def deploy(
    network: Network, trained: Mapping[str, np.ndarray], plan: Plan, sites: Sites, model: ir.Model
) -> Deployed:
    """Return what the trained quantizers compute of their parameters.

    Args:
        network: it is left as it is.
        trained: float32 value of each parameter, by name.
        plan: what training began from.
        sites: what becomes integer in the model.
        model: the float model, whose biases the shifts are to be added to.

    Raises:
        VerificationError: a quantizer gives weights that are no codes, or no scales.
    """
    found = _Readout(network, trained)
    decisions = {t: _decision(plan.tensors[t], t, found, f) for t, f in network.activations.items()}
    weights: dict[str, QTensor] = {}
    for name, faked in network.weights.items():
        site = next(s for s in sites.sites if s.weight is not None and s.weight.name == name)
        value = found[faked.value]
        found_codes = _codes(name, value, found[faked.scale], network.starts[name].axis)
        weights[name] = unsaturated(site, value, found_codes)
    _make_room(weights, network, trained, sites, with_decisions(plan, decisions).tensors)
    nodes = {node.name: node for node in model.graph}
    shifts = {}
    for node, bias in network.biases.items():
        before = constant(input_at(*place_of_bias(nodes[node])))
        after = trained[bias].astype(np.float64)
        shifts[node] = (after if before is None else after - before).reshape(-1)
    return Deployed(decisions, weights, shifts)


def _make_room(
    weights: dict[str, QTensor],
    network: Network,
    trained: Mapping[str, np.ndarray],
    sites: Sites,
    decisions: Mapping[str, Decision],
) -> None:
    """Enlarge the scales of channels of zeros where the bias needs it: they stand for nothing."""
    for site in sites.sites:
        bias, name = network.biases.get(site.name), name_of(site.weight) if site.weight else ""
        tensor = weights.get(name)
        if bias is None or tensor is None or tensor.qparams.axis is None:
            continue
        params = tensor.qparams
        others = tuple(i for i in range(tensor.codes.ndim) if i != params.axis)
        step = decisions[name_of(site.activations[0])].step
        needed = (np.abs(trained[bias].reshape(-1)) / (step * BIAS_LIMIT)).astype(np.float32)
        if needed.shape != params.scale.shape:
            continue
        free = ~tensor.codes.any(axis=others)
        scale = np.where(free, np.maximum(params.scale, needed * _ROOM), params.scale)
        weights[name] = replace(tensor, qparams=replace(params, scale=scale))


class _Readout:
    """What does not depend on data in a network with quantizers."""

    def __init__(self, network: Network, trained: Mapping[str, np.ndarray]) -> None:
        model = inlined(network)
        graph = model.graph
        values = values_by_name(graph)
        wanted = {
            v.name or ""
            for f in network.activations.values()
            for v in (f.scale, f.zero_point, f.encode)
            if v is not None
        }
        wanted |= {v.name or "" for f in network.weights.values() for v in (f.value, f.scale)}
        names = sorted(wanted)
        graph.outputs[:] = [values[n] for n in names]
        for output in graph.outputs:
            output.dtype = ir.DataType.FLOAT
        resolve(graph)
        model.functions.clear()
        remove_unread(graph)
        used = {v.name for v in graph.inputs if v.uses() or v.is_graph_output()}
        graph.inputs[:] = [v for v in graph.inputs if v.name in used]
        names = [v.name or "" for v in graph.outputs]
        session = open_session(to_bytes(model), optimization="disabled")
        feed = {v.name: trained[v.name] for v in session.get_inputs()}
        # resolving may have renamed what is put out; the order is that of the names asked for
        self.found = dict(zip(sorted(wanted), run(session, feed, names), strict=True))

    def __getitem__(self, value: ir.Value) -> np.ndarray:
        return np.asarray(self.found[value.name or ""])


def _decision(old: Decision, tensor: str, found: _Readout, faked: Faked) -> Decision:
    scale = float(found[faked.scale])
    encode = scale if faked.encode is None else float(found[faked.encode])
    if not (np.isfinite([scale, encode]).all() and min(scale, encode) > 0.0):
        raise VerificationError(f"the trained scale of '{tensor}' is {scale:g}; train more slowly")
    zero = 0 if faked.zero_point is None else round(float(found[faked.zero_point]))
    qtype = QType.parse(old.qtype)
    return msgspec.structs.replace(
        old,
        lo=encode * (qtype.qmin - zero),
        hi=encode * (qtype.qmax - zero),
        scale=encode,
        decode=None if faked.encode is None else scale,
        zero_point=zero,
        observed=tensor,
    )


def _codes(name: str, value: np.ndarray, scale: np.ndarray, axis: int | None) -> QTensor:
    """Return a weight that a quantizer put out as codes."""
    steps = value.astype(np.float64) / scale
    codes = np.rint(steps)
    far = float(np.abs(steps - codes).max(initial=0.0))
    if not far <= _CODE_TOLERANCE:
        raise VerificationError(f"the trained weight '{name}' is {far:g} of a step off its codes")
    most = int(np.abs(codes).max(initial=0.0))
    bits = max(2, most.bit_length() + 1)
    qtype = QType(bits, signed=True, narrow=True)
    per_channel = scale.size > 1 or (axis is not None and scale.ndim > 0)
    scales = scale.reshape(-1).astype(np.float32) if per_channel else scale.reshape(()).astype("f4")
    zero = np.zeros(scales.shape, qtype.storage)
    params = QParams(scales, zero, qtype, axis if per_channel else None)
    return QTensor(codes.astype(qtype.storage), params)
