"""Find the sites: the operators that can become integer kernels, and why the others cannot.

Three roles (see `ptq.targets`): a ``linear`` operator with a constant weight is a site by itself;
``elementwise`` and ``move`` operators become sites only between sites, because a lone one pays
for a QuantizeLinear and a DequantizeLinear and gains nothing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.errors import ConfigError
from ptq.plan import NodePlan
from ptq.plan.request import Request
from ptq.targets import OpRule, Target

#: Defaults of the attributes that target rules ask about (ONNX operator specifications).
_ATTRIBUTE_DEFAULTS: dict[tuple[str, str], int | float | str] = {
    ("Gemm", "alpha"): 1.0,
    ("Gemm", "beta"): 1.0,
    ("Gemm", "transA"): 0,
    ("Resize", "mode"): "nearest",
}


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One operator that becomes an integer kernel.

    Attributes:
        node: the operator.
        rule: the target's rule for it.
        activations: its quantized inputs; constants of elementwise operators are among them.
        weight: the constant weight of a linear operator.
        bias: the constant bias, where there is one.
        absorbed: the Relu or Clip that the requantization does.
        outputs: the tensors to requantize, after the absorbed activation function.
        requantize: whether the outputs are quantized.
        weight_axis: the output-channel axis of the weight; ``None`` where the kernel takes one
            scale only.
        depthwise: whether it is a convolution with one input channel per group.
    """

    node: ir.Node
    rule: OpRule
    activations: tuple[ir.Value, ...]
    weight: ir.Value | None
    bias: ir.Value | None
    absorbed: ir.Node | None
    outputs: tuple[ir.Value, ...]
    requantize: bool
    weight_axis: int | None = None
    depthwise: bool = False

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """The sites of a graph in graph order, and the reason for every other node.

    Attributes:
        sites: what becomes integer.
        why_float: the reason by node name, for every node of the main graph that is no site and
            not absorbed by one.
        moved: the tensor whose values it holds, by tensor that a ``move`` operator puts out which
            the target leaves in float.
    """

    sites: tuple[Site, ...]
    why_float: dict[str, str]
    moved: dict[str, str]

    def quantized(self) -> dict[str, ir.Value]:
        """Return every activation tensor that is to be quantized, by name, in graph order."""
        tensors: dict[str, ir.Value] = {}
        for site in self.sites:
            outputs = site.outputs if site.requantize else ()
            for value in (*site.activations, *outputs):
                tensors.setdefault(_name(value), value)
        return tensors


def find_sites(
    model: ir.Model,
    target: Target,
    *,
    op_types: Iterable[str] = (),
    exclude: Sequence[str] = (),
    keep_float: Mapping[str, str] | None = None,
) -> Sites:
    """Return the sites of the main graph.

    Args:
        model: a normalized model (`ptq.graph.normalize`).
        target: what the backend runs.
        op_types: if any are given, the only operator types that may become integer.
        exclude: globs over node names; matching nodes stay in float.
        keep_float: further nodes that stay in float, with the reason.

    Raises:
        ConfigError: an operator type is not one that the target runs, or a glob matches no node.
    """
    finder = _Finder(model, target, frozenset(op_types), keep_float or {})
    finder.exclude(exclude)
    return finder.find()


class _Finder:
    """The search for sites; holds what every step asks about."""

    def __init__(
        self,
        model: ir.Model,
        target: Target,
        op_types: frozenset[str],
        keep_float: Mapping[str, str],
    ) -> None:
        self.nodes = list(model.graph)
        self.target = target
        self.op_types = op_types
        self.keep_float = dict(keep_float)
        self.outputs = {id(v) for v in model.graph.outputs}
        self.why: dict[str, str] = {}
        if unknown := sorted(op_types - target.ops.keys()):
            raise ConfigError(
                f"operator type '{unknown[0]}' has no integer kernel on target '{target.name}'; "
                f"choose from: {', '.join(sorted(target.ops))}"
            )

    def exclude(self, globs: Sequence[str]) -> None:
        """Keep the nodes in float whose names match."""
        names = [n.name or "" for n in self.nodes]
        for glob in globs:
            matched = fnmatch.filter(names, glob)
            if not matched:
                raise ConfigError(
                    f"--exclude '{glob}' matches no node; `ptq inspect` lists the node names"
                )
            self.keep_float.update(dict.fromkeys(matched, "excluded by --exclude"))

    def find(self) -> Sites:
        candidates: dict[int, Site] = {}
        for node in self.nodes:
            if site := self._candidate(node):
                candidates[id(node)] = site
        chosen = self._between_integers(candidates)
        wanted = {id(v) for s in chosen.values() for v in s.activations}
        sites: list[Site] = []
        for node in self.nodes:
            if site := chosen.get(id(node)):
                needed = site.rule.output or any(id(v) in wanted for v in site.outputs)
                sites.append(site if needed == site.requantize else _without_output(site))
        for site in sites:
            self.why.pop(site.name, None)
            if site.absorbed is not None:
                self.why.pop(site.absorbed.name or "", None)
        moved = {
            _name(value): _name(site.activations[0])
            for key, site in candidates.items()
            if site.rule.role == "move" and key not in chosen
            for value in site.outputs
        }
        return Sites(tuple(sites), self.why, moved)

    def _candidate(self, node: ir.Node) -> Site | None:
        why, site = self._examine(node)
        if site is None:
            self.why[node.name or ""] = why
        return site

    def _examine(self, node: ir.Node) -> tuple[str, Site | None]:
        if node.domain not in ("", "ai.onnx"):
            return f"operator of domain '{node.domain}'", None
        rule = self.target.ops.get(node.op_type)
        if rule is None:
            default = f"no integer kernel on target '{self.target.name}'"
            return self.target.left_float.get(node.op_type, default), None
        if why := self.keep_float.get(node.name or ""):
            return why, None
        if self.op_types and node.op_type not in self.op_types:
            return "not among --op-types", None
        for attribute, wanted in rule.when.items():
            default_value = _ATTRIBUTE_DEFAULTS[node.op_type, attribute]
            found = _attribute(node, attribute, default_value)
            if found != wanted:
                return f"attribute {attribute}={found}; the kernel needs {wanted}", None
        if rule.role == "linear":
            return self._linear(node, rule)
        return self._unweighted(node, rule)

    def _linear(self, node: ir.Node, rule: OpRule) -> tuple[str, Site | None]:
        x, weight = node.inputs[0], node.inputs[rule.weight or 0]
        if x is None or weight is None:
            return "an input is missing", None
        if not weight.is_initializer() or weight.const_value is None:
            return "the weight is not constant", None
        if weight.dtype != ir.DataType.FLOAT:
            return f"the weight is {weight.dtype}, not float32", None
        if x.is_initializer():
            return "both operands are constant", None
        bias = _input(node, rule.bias)
        if bias is not None and not bias.is_initializer():
            return "the bias is not constant", None
        rank = len(weight.const_value.shape)
        if rank < 2:
            return "the weight is a vector", None
        axis = _weight_axis(node, rank)
        shape = weight.const_value.shape.numpy()
        if axis is not None and not _per_channel(bias, shape[axis]):
            return "the bias is not one value per output channel", None
        absorbed = self._absorbable(node, rule)
        return "", Site(
            node=node,
            rule=rule,
            activations=(x,),
            weight=weight,
            bias=bias,
            absorbed=absorbed,
            outputs=((absorbed or node).outputs[0],),
            requantize=True,
            weight_axis=axis,
            depthwise=_depthwise(node, weight),
        )

    def _unweighted(self, node: ir.Node, rule: OpRule) -> tuple[str, Site | None]:
        count = rule.inputs or len(node.inputs)
        activations = tuple(v for v in node.inputs[:count] if v is not None)
        if len(activations) != len(node.inputs[:count]):
            return "an input is missing", None
        for value in activations:
            if value.dtype not in (ir.DataType.FLOAT, None):
                return f"works on {value.dtype}, not on float32", None
            constant = value.const_value if value.is_initializer() else None
            if constant is not None and constant.size != 1:
                return "an operand is a constant array", None
        if all(v.is_initializer() for v in activations):
            return "all operands are constant", None
        for value in node.outputs:
            if value.dtype not in (ir.DataType.FLOAT, None):
                return f"puts out {value.dtype}, not only float32", None
        if _attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
            return "the kernel would take extrapolation_value for a code", None
        absorbed = self._absorbable(node, rule)
        outputs = (absorbed.outputs[0],) if absorbed else tuple(node.outputs)
        return "", Site(
            node=node,
            rule=rule,
            activations=activations,
            weight=None,
            bias=None,
            absorbed=absorbed,
            outputs=outputs,
            requantize=True,
        )

    def _absorbable(self, node: ir.Node, rule: OpRule) -> ir.Node | None:
        """Return the Relu or Clip that is the only reader of the node's only output."""
        if not rule.absorbs or len(node.outputs) != 1 or id(node.outputs[0]) in self.outputs:
            return None
        consumers = node.outputs[0].consumers()
        if len(consumers) != 1:
            return None
        after = consumers[0]
        # a body graph of an If or Loop may be the reader: only nodes of this graph can be absorbed
        if after.graph is not node.graph or after.domain not in ("", "ai.onnx"):
            return None
        if (after.name or "") in self.keep_float:
            return None
        if after.op_type == "Relu":
            return after
        if after.op_type == "Clip" and _clips_to_grid(after):
            return after
        return None

    def _between_integers(self, candidates: dict[int, Site]) -> dict[int, Site]:
        """Drop the elementwise and move candidates that are not between integer operators.

        What is left is the largest such set. The graph has no cycles, so that every member has a
        linear operator before and after it.
        """
        producer = {id(v): s for s in candidates.values() for v in s.outputs}
        readers: dict[int, list[Site]] = {}
        for site in candidates.values():
            for value in site.activations:
                readers.setdefault(id(value), []).append(site)
        kept = dict(candidates)

        def is_kept(site: Site | None) -> bool:
            return site is not None and id(site.node) in kept

        def why_not(site: Site) -> str:
            fed = [v for v in site.activations if is_kept(producer.get(id(v)))]
            if not fed:
                return "no integer operator before it"
            if not any(is_kept(r) for v in site.outputs for r in readers.get(id(v), ())):
                return "no integer operator after it"
            after = site.rule.after
            if after and not any(producer[id(v)].node.op_type in after for v in fed):
                return f"the integer kernel is slow unless it follows {' or '.join(after)}"
            return ""

        changed = True
        while changed:
            changed = False
            for key, site in list(kept.items()):
                if site.rule.role == "linear":
                    continue
                if why := why_not(site):
                    del kept[key]
                    self.why[site.name] = why
                    changed = True
        return kept


def _without_output(site: Site) -> Site:
    """Return the site with a float output; then nothing is absorbed either."""
    return Site(
        node=site.node,
        rule=site.rule,
        activations=site.activations,
        weight=site.weight,
        bias=site.bias,
        absorbed=None,
        outputs=tuple(site.node.outputs),
        requantize=False,
        weight_axis=site.weight_axis,
        depthwise=site.depthwise,
    )


def _clips_to_grid(clip: ir.Node) -> bool:
    """Whether the clip is constant and its range holds 0: then quantizing can replace it."""
    lo, hi = (_scalar(_input(clip, i)) for i in (1, 2))
    if _input(clip, 1) is not None and lo is None:
        return False
    if _input(clip, 2) is not None and hi is None:
        return False
    return (lo is None or lo <= 0.0) and (hi is None or hi > 0.0)


def clip_range(node: ir.Node) -> tuple[float, float]:
    """Return the range that an absorbed Relu or constant Clip maps into."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    lo, hi = (_scalar(_input(node, i)) for i in (1, 2))
    return (-float("inf") if lo is None else lo), (float("inf") if hi is None else hi)


def _weight_axis(node: ir.Node, rank: int) -> int | None:
    """The output-channel axis: 0 for Conv, by transB for Gemm, the last for MatMul of a matrix.

    A batch of matrices has one scale: with more, onnxruntime loads the model and fails to run it.
    """
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        return 1 if rank == 2 else None
    return 0


def _per_channel(bias: ir.Value | None, channels: int) -> bool:
    """Whether the bias, if there is one, is a vector or a row over the output channels."""
    if bias is None or bias.const_value is None:
        return True
    shape = tuple(bias.const_value.shape.numpy())
    return shape[-1:] == (channels,) and bias.const_value.size == channels


def _depthwise(node: ir.Node, weight: ir.Value) -> bool:
    array = _array(weight)
    grouped = _attribute(node, "group", 1) != 1
    return node.op_type == "Conv" and grouped and array is not None and array.shape[1] == 1


def _attribute(node: ir.Node, name: str, default: float | str) -> float | str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    if index is None or index >= len(node.inputs):
        return None
    return node.inputs[index]


def _array(value: ir.Value | None) -> np.ndarray | None:
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def _scalar(value: ir.Value | None) -> float | None:
    array = _array(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _name(value: ir.Value) -> str:
    return value.name or ""


def requests(sites: Sites) -> list[Request]:
    """Return what planning must decide, in an order in which every source comes first.

    Only tensors that compute new values are observed: what a ``move`` operator puts out has the
    scale of its input, and a concatenation covers the ranges of its parts. A move in float between
    sites keeps the scale, too: the values were rounded with it, and another would round again.
    """
    found: dict[str, Request] = {}
    rounded = {_name(v) for s in sites.sites if s.requantize for v in s.outputs}
    for site in sites.sites:
        for value in site.activations:
            name, constant = _name(value), _scalar(value)
            origin = name
            while origin not in rounded and origin in sites.moved:
                origin = sites.moved[origin]
            if constant is not None:
                request = Request(name, constant=constant)
            elif origin != name and origin in rounded:
                request = Request(name, copies=origin)
            else:
                request = Request(name, observed=name)
            found.setdefault(name, request)
        if not site.requantize:
            continue
        inputs = tuple(_name(v) for v in site.activations)
        for value in site.outputs:
            name = _name(value)
            if site.rule.role == "move":
                request = Request(name, copies=inputs[0])
            elif site.node.op_type == "Concat":
                request = Request(name, joins=inputs)
            else:
                request = Request(name, observed=name)
            found.setdefault(name, request)
    return list(found.values())


def plan_nodes(model: ir.Model, sites: Sites, *, symmetric: bool) -> tuple[NodePlan, ...]:
    """Return what becomes of every node of the main graph.

    Args:
        model: the model that the sites were found in.
        sites: its sites.
        symmetric: whether weights are to have zero point 0; where the target's kernels need it,
            they have it anyway.
    """
    by_node = {id(s.node): s for s in sites.sites}
    by_node.update((id(s.absorbed), s) for s in sites.sites if s.absorbed is not None)
    planned: list[NodePlan] = []
    for node in model.graph:
        site = by_node.get(id(node))
        name = node.name or ""
        if site is None:
            why = sites.why_float.get(name, "")
            planned.append(NodePlan(name=name, op_type=node.op_type, integer=False, why=why))
            continue
        weight = site.weight if node is site.node else None
        forced = site.depthwise and not site.rule.asymmetric_depthwise
        planned.append(
            NodePlan(
                name=name,
                op_type=node.op_type,
                integer=True,
                weight=weight.name if weight is not None else None,
                weight_symmetric=symmetric or forced,
            )
        )
    return tuple(planned)
