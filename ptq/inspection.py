"""What a model is made of, and what of it would be quantized, or runs as integer already."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from ptq.config import QuantizeConfig
from ptq.graph.describe import describe_values, opset_of, parameters, weight_bytes
from ptq.graph.load import model_files
from ptq.graph.quantized import code_count, read_quantized
from ptq.graph.sites import plan_nodes
from ptq.plan import NodePlan
from ptq.progress import Stages
from ptq.report.inspection import Inspection, QuantizedInspection
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.kinds import is_quantized
from ptq.runtime.layer import Layer, count_layers
from ptq.schemes import SchemeWriter
from ptq.source import Source, find_configured_sites
from ptq.targets import load_target


def inspect_source(source: Source, config: QuantizeConfig) -> Inspection:
    """Describe a prepared float model under these settings."""
    if config.scheme in ("static", "auto"):
        nodes, predicted = _foresee(source, config)
    else:
        nodes, predicted = SchemeWriter(source, config, Stages(), convolutions=False).foresee()
    graph = source.model.graph
    return Inspection(
        path=str(source.path),
        size_bytes=source.size_bytes,
        opset=source.opset,
        inputs=describe_values(v for v in graph.inputs if not v.is_initializer()),
        outputs=describe_values(graph.outputs),
        operators=dict(Counter(n.op_type for n in graph).most_common()),
        parameters=parameters(source.model),
        prepared=source.prepared,
        nodes=nodes,
        predicted_bytes=predicted,
        target=config.target,
    )


def _foresee(source: Source, config: QuantizeConfig) -> tuple[tuple[NodePlan, ...], int]:
    """Return what static quantization would make of every node, and about how many bytes."""
    sites = find_configured_sites(source.model, load_target(config.target), config)
    weights = {s.weight.name: s.weight for s in sites.sites if s.weight is not None}
    # float32 to int8 saves three bytes of four
    saved = sum(3 * weight_bytes(w) // 4 for w in weights.values())
    nodes = plan_nodes(source.model, sites, symmetric=config.weights_symmetric)
    return nodes, source.size_bytes - saved


def inspect_quantized(path: Path) -> QuantizedInspection | None:
    """Describe a model that is quantized already by what onnxruntime runs; ``None`` if it is not.

    Raises:
        ModelError: it cannot be read.
        VerificationError: onnxruntime does not load it.
    """
    files = model_files(path)
    model = read_quantized(path)
    if not is_quantized(model.graph):
        return None
    ran = measure_coverage(path)
    layers = tuple(_with_purpose(ran.layers, model.metadata_props.get("ptq", "")))
    integer, total = count_layers(layers)
    return QuantizedInspection(
        path=str(path),
        size_bytes=sum(file.stat().st_size for file in files),
        opset=opset_of(model),
        inputs=describe_values(v for v in model.graph.inputs if not v.is_initializer()),
        outputs=describe_values(model.graph.outputs),
        operators=dict(Counter(n.op_type for n in model.graph.all_nodes()).most_common()),
        parameters=parameters(model),
        codes=code_count(model),
        onnxruntime=version("onnxruntime"),
        layers=layers,
        integer_layers=integer,
        total_layers=total,
        ran_integer=dict(ran.integer.most_common()),
        ran_float=dict(ran.floating.most_common()),
        conversions=ran.conversions,
    )


class _Choices(msgspec.Struct):
    exclude: tuple[str, ...] = ()


class _Recipe(msgspec.Struct):
    """The part of the recipe in a model that says what was kept in float on purpose."""

    config: _Choices = msgspec.field(default_factory=_Choices)


def _with_purpose(layers: Sequence[Layer], recipe: str) -> Iterator[Layer]:
    """Yield the layers, those that the user excluded with that as the reason."""
    try:
        globs = msgspec.json.decode(recipe, type=_Recipe).config.exclude if recipe else ()
    except msgspec.DecodeError:  # somebody else's property of that name
        globs = ()
    for layer in layers:
        excluded = any(fnmatch.fnmatch(layer.name, glob) for glob in globs)
        if excluded and not layer.integer:
            layer = msgspec.structs.replace(layer, why="excluded by --exclude")
        yield layer
