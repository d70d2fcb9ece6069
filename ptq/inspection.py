"""What a model is made of, and what of it would be quantized, or runs as integer already."""

from __future__ import annotations

import fnmatch
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from ptq.calibration import Calibration, Header
from ptq.config import AUTO, PLACE_ALL, Override, QuantizeConfig, Scheme
from ptq.embedded import PinnedPlacement
from ptq.errors import ConfigError
from ptq.graph.describe import describe_values, opset_of, parameters
from ptq.graph.emit_integer import fuse_integer
from ptq.graph.load import model_size
from ptq.graph.quantized import code_count, read_quantized
from ptq.graph.save import save_model
from ptq.graph.sites import plan_nodes
from ptq.graph.widen import widened
from ptq.inputs import Inputs
from ptq.overrides import IN_FLOAT, Overrides
from ptq.plan import NodePlan
from ptq.presets import PRESETS
from ptq.progress import Stages
from ptq.report.dry_run import DryRun, PresetForecast
from ptq.report.inspection import Inspection, OverrideEffect, QuantizedInspection
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.host import host_target
from ptq.runtime.kinds import is_quantized
from ptq.runtime.layer import Layer, count_layers
from ptq.schemes import SchemeWriter
from ptq.source import Source, find_configured_sites, open_source
from ptq.stats.base import TensorStats
from ptq.targets import load_target
from ptq.work import Work

#: Why a node is in float that was kept there after measuring, or asking the runtime.
_PLACED = "kept in float when it was placed"

#: What ``--scheme auto`` tries beside ``static``.
_OTHERS: tuple[Scheme, ...] = ("dynamic", "weight-only")


def inspect_source(source: Source, config: QuantizeConfig) -> Inspection:
    """Describe a prepared float model under these settings."""
    nodes, predicted = _foresee(source, config)
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
        overrides=tuple(_effects(source, config)),
    )


def _effects(source: Source, config: QuantizeConfig) -> Iterator[OverrideEffect]:
    for effect in Overrides(source.model, config).effects:
        yield OverrideEffect(
            override=str(effect.override),
            changes=effect.override.changes,
            nodes=len(effect.nodes),
            tensors=len(effect.tensors),
        )


def foresee(
    path: Path, config: QuantizeConfig, presets: Mapping[str, QuantizeConfig | ConfigError]
) -> DryRun:
    """Return what a run would do, and how large each preset's result would be.

    Args:
        path: the float model.
        config: the settings of the run.
        presets: by the name of each preset, what they would be with it, or why there are none.

    Raises:
        ModelError: the model cannot be read.
        ConfigError: a setting is wrong.
    """
    config.require_known()
    source = open_source(path)
    sizes: dict[QuantizeConfig, int] = {}

    def forecast(name: str, given: QuantizeConfig | ConfigError) -> PresetForecast:
        size, why = None, ""
        if isinstance(given, QuantizeConfig):
            alike = _sized(given)
            size = sizes[alike] if alike in sizes else predicted_bytes(source, alike)
            sizes[alike] = size
        else:
            why = str(given)
        return PresetForecast(
            name=name,
            summary=PRESETS[name].summary,
            settings=dict(PRESETS[name].settings),
            predicted_bytes=size,
            why=why,
            chosen=given == config,
        )

    inspection = inspect_source(source, _at_home(config))
    sizes[_sized(config)] = inspection.predicted_bytes
    forecasts = tuple(forecast(name, given) for name, given in presets.items())
    return DryRun(inspection=inspection, config=config, presets=forecasts)


def _at_home(config: QuantizeConfig) -> QuantizeConfig:
    return config.at(host_target()) if config.target == AUTO else config


def _sized(config: QuantizeConfig) -> QuantizeConfig:
    """Return settings that give the same size, the same for many: ranges change none, levels do."""
    place = config.placed_globs or (PLACE_ALL,)
    method = _of_the_same_size(config, "")
    return msgspec.structs.replace(
        _at_home(config), calib="minmax", weight_method=method, qcode_objective="mse", place=place
    )


def _of_the_same_size(config: QuantizeConfig, uniform: str) -> str:
    """Return a weight quantizer: ``uniform``, unless what the one asked for stores differs."""
    if config.scheme == "weight-only":
        return config.weight_method  # the scales of blocks take more in some methods
    return uniform if config.weight_quantizer().uniform else config.weight_method


def predicted_bytes(source: Source, config: QuantizeConfig) -> int:
    """Return how many bytes the main file would have, with all in integers that can be.

    The model is written with made-up scales, so that this is within a percent but for what
    depends on data: where measured costs decide, a file with more in float is larger.
    """
    return _foresee(source, config)[1]


def _foresee(source: Source, config: QuantizeConfig) -> tuple[tuple[NodePlan, ...], int]:
    """Return what quantization would make of every node, and about how many bytes."""
    if config.scheme == "auto":
        nodes, size = _foresee(source, config.with_scheme("static"))
        if config.prefer == "size":
            others = [config.with_scheme(s) for s in _OTHERS]
            size = min(size, *(predicted_bytes(source, other) for other in others))
        return nodes, size
    if config.scheme != "static":
        return SchemeWriter(source, Inputs(), config, Stages(), convolutions=False).foresee()
    sites = find_configured_sites(source.model, load_target(config.target), config)
    nodes = plan_nodes(source.model, sites, symmetric=config.weights_symmetric)
    return nodes, _Unobserved(source, config).size_bytes() if sites.sites else source.size_bytes


class _Unobserved(Work):
    """Static work on tensors that all have the same made-up values, to see how large it comes."""

    def __init__(self, source: Source, config: QuantizeConfig) -> None:
        # range methods change numbers, and not how many there are
        quick = {"calib": "minmax", "qcode_objective": "mse"}
        quick["weight_method"] = _of_the_same_size(config, "minmax")
        config = msgspec.structs.replace(config, **quick)
        super().__init__(source, Inputs(), config, Stages(), 1)

    def size_bytes(self) -> int:
        """Return the size of the model, with external data, in the first of its formats."""
        model = self.source.model.clone()
        emitted = self._emit(model, {}, self._plan(self._sites({}), {}))
        if self.config.formats[0] == "integer":
            fuse_integer(model)
        self._store(model, emitted)
        with tempfile.TemporaryDirectory(prefix="ptq-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return model_size(path)

    def _observe(self, tensors: Sequence[str]) -> None:
        header = Header(
            ptq="", model_sha256="", data_sha256="", data_source="", synthetic=True, samples=1,
            sample_size=0, ema_decay=0.0,
        )  # fmt: skip
        # what Relu and Clip(0, 6) give, which then saturates and needs no operator of its own
        values = TensorStats.of(np.array([0, 6], np.float32))
        self.calibration = Calibration(header, dict.fromkeys(tensors, values))


def inspect_quantized(path: Path) -> QuantizedInspection | None:
    """Describe a model that is quantized already by what onnxruntime runs; ``None`` if it is not.

    Raises:
        ModelError: it cannot be read.
        VerificationError: onnxruntime does not load it.
    """
    size_bytes = model_size(path)  # which looks first at where external data lies
    model = read_quantized(path)
    if not is_quantized(model.graph):
        return None
    ran = measure_coverage(path)
    layers = tuple(_with_purpose(ran.layers, model.metadata_props.get("ptq", "")))
    integer, total = count_layers(layers)
    return QuantizedInspection(
        path=str(path),
        size_bytes=size_bytes,
        opset=opset_of(model),
        inputs=describe_values(v for v in model.graph.inputs if not v.is_initializer()),
        outputs=describe_values(model.graph.outputs),
        operators=dict(Counter(n.op_type for n in model.graph.all_nodes()).most_common()),
        parameters=parameters(model),
        codes=code_count(widened(model)),
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
    overrides: tuple[Override, ...] = ()


class _Recipe(msgspec.Struct):
    """The part of the recipe in a model that says what was kept in float on purpose."""

    config: _Choices = msgspec.field(default_factory=_Choices)
    placement: PinnedPlacement = msgspec.field(default_factory=PinnedPlacement)

    def why(self, layer: Layer) -> str:
        """Return why a layer was kept in float; empty if it was not, on purpose."""
        if any(fnmatch.fnmatch(layer.name, glob) for glob in self.config.exclude):
            return "excluded by --exclude"
        said = [o for o in self.config.overrides if o.float is not None and _fits(o, layer)]
        if said and said[-1].float:
            return IN_FLOAT
        return _PLACED if layer.name in self.placement.keep_float else ""


def _fits(override: Override, layer: Layer) -> bool:
    """Whether an override matches a layer by the node's name."""
    return override.op in ("", layer.op_type) and fnmatch.fnmatch(layer.name, override.match)


def _with_purpose(layers: Sequence[Layer], text: str) -> Iterator[Layer]:
    """Yield the layers, those that were kept in float on purpose with that as the reason."""
    try:
        recipe = msgspec.json.decode(text, type=_Recipe) if text else _Recipe()
    except (msgspec.DecodeError, ConfigError):  # somebody else's property, or a later version's
        recipe = _Recipe()
    for layer in layers:
        why = "" if layer.integer else recipe.why(layer)
        yield msgspec.structs.replace(layer, why=why) if why else layer
