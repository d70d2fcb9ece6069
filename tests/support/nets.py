"""Quantize small graphs without the pipeline, and say by other means what must come out.

The oracle is `simulate`: the float graph, evaluated node by node with onnx.reference, with every
value that the plan quantizes rounded by numpy. Nothing of it looks at the graph that was emitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from support.models import Arrays, load, random_feed

from ptq.calib import Solver, parse_method
from ptq.graph.emit_qdq import Emitted, emit_qdq
from ptq.graph.normalize import normalize
from ptq.graph.site_weights import unsaturated
from ptq.graph.sites import Site, Sites, find_sites, plan_nodes, requests
from ptq.numerics.affine import QParams, QTensor, dequantize
from ptq.numerics.affine import quantize as codes_of
from ptq.numerics.qtype import QType
from ptq.plan import Decision, Plan
from ptq.plan.make import RangeChoice, decide
from ptq.runtime.coverage import Coverage, measure_coverage
from ptq.runtime.host import host_target
from ptq.stats.base import TensorStats
from ptq.targets import Target, load_target
from ptq.weights import parse_method as parse_weights

TARGET = load_target(host_target())


@dataclass(frozen=True)
class Settings:
    """How to quantize a graph in a test.

    Powers of two are the default: then every sum of products is exact in float32, so that the
    float simulation, the unfused graph and the integer kernels must agree to the bit.
    """

    calib: str = "qcode"
    weight_method: str = "qcode"
    per_channel: bool = True
    weights_symmetric: bool = True
    symmetric: bool = True
    op_types: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_float: tuple[tuple[str, str], ...] = ()
    target: Target = TARGET
    bits: int = 8
    activation_bits: int = 8

    @property
    def solver(self) -> Solver:
        return parse_method(self.calib)

    def sites(self, model: ir.Model) -> Sites:
        return find_sites(
            model,
            self.target,
            op_types=self.op_types,
            exclude=self.exclude,
            keep_float=dict(self.keep_float),
            dyadic=self.solver.power_of_two,
        )

    def quantize_weight(self, _: str, w: np.ndarray, axis: int, symmetric: bool) -> QTensor:
        quantizer = parse_weights(self.weight_method)
        qtype = replace(QType.parse(self.target.weight), bits=self.bits)
        return quantizer.quantize(
            w, qtype, axis=axis if self.per_channel else None, symmetric=symmetric
        )


#: Scales as the fast path has them: asymmetric activations, extremes of the data.
ORDINARY = Settings(calib="minmax", weight_method="minmax", symmetric=False)


@dataclass(frozen=True)
class Quantized:
    """A graph before and after.

    Attributes:
        source: the normalized float graph.
        model: the graph with QuantizeLinear and DequantizeLinear.
        sites: of ``source``.
        plan: what was decided.
        emitted: what emitting said.
        settings: how.
    """

    source: ir.Model
    model: ir.Model
    sites: Sites
    plan: Plan
    emitted: Emitted
    settings: Settings

    @property
    def site_names(self) -> list[str]:
        return [site.name for site in self.sites.sites]

    def coverage(self) -> Coverage:
        """Return what onnxruntime makes of the sites."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(to_bytes(self.model))
            return measure_coverage(path, self.site_names)

    def steps(self) -> list[float]:
        """Return the quantization step of every output, 0 for one that is not quantized."""
        decisions = self.plan.tensors
        names = [value.name for value in self.source.graph.outputs]
        return [decisions[n].step if n in decisions else 0.0 for n in names]


def prepare(text: str | ir.Model, weights: Arrays | None = None, **options: int) -> ir.Model:
    """Return the normalized model of a graph in ONNX text."""
    model = load(text, weights, **options) if isinstance(text, str) else text
    normalize(model)
    return model


def quantize(
    text: str | ir.Model,
    weights: Arrays | None = None,
    *,
    feeds: Sequence[Arrays] | None = None,
    settings: Settings | None = None,
    decisions: Mapping[str, Decision] | None = None,
) -> Quantized:
    """Quantize a graph, calibrated on whole tensors of the feeds (by default one random feed)."""
    settings = settings or Settings()
    source = prepare(text, weights)
    sites = settings.sites(source)
    feeds = feeds or [random_feed(source)]
    asked = requests(sites)
    if decisions is None:
        stats = observed(source, feeds, [r.observed for r in asked if r.observed])
        qtype = replace(QType.parse(settings.target.activation), bits=settings.activation_bits)
        symmetric = settings.symmetric or settings.target.activation_symmetric
        decisions = decide(asked, stats, RangeChoice(settings.solver, qtype, symmetric))
    nodes = plan_nodes(source, sites, symmetric=settings.weights_symmetric)
    plan = Plan(target=settings.target.name, tensors=dict(decisions), nodes=nodes)
    model, emitted = _emit(source, plan, settings)
    return Quantized(source, model, sites, plan, emitted, settings)


def emit(quantized: Quantized, *, absorb: bool = True) -> tuple[ir.Model, Emitted]:
    """Emit the plan once more, for tests that change the model."""
    return _emit(quantized.source, quantized.plan, quantized.settings, absorb=absorb)


def _emit(
    source: ir.Model, plan: Plan, settings: Settings, *, absorb: bool = True
) -> tuple[ir.Model, Emitted]:
    model = source.clone()
    sites = settings.sites(model)
    guard = settings.target.runtime == "onnxruntime"
    return model, emit_qdq(model, sites, plan, settings.quantize_weight, absorb=absorb, guard=guard)


def observed(
    model: ir.Model, feeds: Sequence[Arrays], names: Sequence[str]
) -> dict[str, TensorStats]:
    """Return statistics of whole tensors, one run of the float model for each feed."""
    parts: dict[str, list[TensorStats]] = {name: [] for name in names}
    for feed in feeds:
        found = values(model, feed, names)
        for name in names:
            parts[name].append(TensorStats.of(found[name]))
    return {name: reduce(add, stats) for name, stats in parts.items()}


def values(model: ir.Model, feed: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return tensors of the main graph, inputs among them, as onnxruntime computes them."""
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    inner = [name for name in names if name not in feed]
    for name in inner:
        if name not in known:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    found = dict(zip(inner, run(proto, feed, "disabled", inner), strict=True)) if inner else {}
    return {name: found[name] if name in found else feed[name] for name in names}


LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def run(
    model: ir.Model | onnx.ModelProto,
    feed: Arrays,
    level: str = "disabled",
    outputs: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Run a model in onnxruntime, as it is written (``disabled``) or as users run it (``all``)."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = to_bytes(model)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(outputs, dict(feed))


def to_bytes(model: ir.Model | onnx.ModelProto) -> bytes:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    proto.ir_version = 10
    return proto.SerializeToString()


def check(model: ir.Model) -> None:
    """Check that the ONNX checker, with shape inference, takes a model."""
    proto = onnx.ModelProto.FromString(to_bytes(model))
    onnx.checker.check_model(proto, full_check=True)


# -- the oracle ------------------------------------------------------------------------------------


def simulate(quantized: Quantized, feed: Arrays) -> list[np.ndarray]:
    """Return the outputs of the float graph with fake-quantized activations and parameters."""
    graph = quantized.source.graph
    inputs = {id(s.node): s for s in quantized.sites.sites}
    rounded = _rounded_by(quantized.sites)
    known: dict[int, np.ndarray] = {id(v): feed[v.name] for v in graph.inputs if v.name in feed}
    for value in graph.initializers.values():
        known[id(value)] = np.asarray(value.const_value.numpy())
    for node in graph:
        given = [None if v is None else known[id(v)] for v in node.inputs]
        site = inputs.get(id(node))
        if site is not None:
            given = _as_site_reads(quantized, site, given, rounded)
        for value, array in zip(node.outputs, evaluate(node, given), strict=True):
            if id(value) in rounded:
                array = _fake(quantized, value, array)
            known[id(value)] = array
    return [known[id(v)] for v in graph.outputs]


def evaluate(node: ir.Node, given: Sequence[np.ndarray | None]) -> Sequence[np.ndarray]:
    """Compute one node with onnx.reference."""
    proto = ir.serde.serialize_node(node)
    names = [name for name in proto.input if name]
    arrays = [array for array in given if array is not None]
    return ReferenceEvaluator(proto, opsets={"": 21}).run(
        None, dict(zip(names, arrays, strict=False))
    )


def _rounded_by(sites: Sites) -> set[int]:
    """The values that a site puts out rounded."""
    return {id(v) for site in sites.sites if site.requantize for v in site.outputs}


def _fake(quantized: Quantized, value: ir.Value, array: np.ndarray) -> np.ndarray:
    decision = quantized.plan.tensors[value.name]
    params = qparams(decision)
    read = replace(params, scale=np.asarray(decision.step, np.float32))
    codes = codes_of(array, params)
    if decision.starts:
        levels = [decision.levels[sum(q >= s for s in decision.starts)] for q in range(256)]
        codes = np.asarray(levels, codes.dtype)[codes]
    return dequantize(codes, read)


def _as_site_reads(
    quantized: Quantized, site: Site, given: list[np.ndarray | None], rounded: set[int]
) -> list[np.ndarray | None]:
    read = list(given)
    for index, value in enumerate(site.node.inputs):
        is_read = any(value is activation for activation in site.activations)
        if is_read and id(value) not in rounded:
            read[index] = _fake(quantized, value, given[index])
    if site.weight is None:
        return read
    symmetric = {n.name: n.weight_symmetric for n in quantized.plan.nodes}[site.name]
    weight = quantized.settings.quantize_weight(
        site.name, given[site.rule.weight], site.weight_axis, symmetric
    )
    weight = unsaturated(site, given[site.rule.weight], weight)
    read[site.rule.weight] = weight.dequantize()
    if site.bias is not None:
        scale = np.float32(quantized.plan.tensors[site.activations[0].name].step)
        steps = (scale * weight.qparams.scale).astype(np.float64)
        bias = given[site.rule.bias]
        codes = np.rint(bias.astype(np.float64).reshape(-1) / steps)
        read[site.rule.bias] = (codes * steps).astype(np.float32).reshape(bias.shape)
    return read


def qparams(decision: Decision) -> QParams:
    """Return the parameters that a decision stands for."""
    qtype = QType.parse(decision.qtype)
    return QParams(
        np.asarray(decision.scale, np.float32),
        np.asarray(decision.zero_point, qtype.storage),
        qtype,
    )


def normal(shape: Sequence[int], seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Return reproducible normal numbers as float32."""
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)
