"""Write models whose activations need no calibration: dynamic and weight-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from ptq import __version__
from ptq.config import FileFormat, QuantizeConfig
from ptq.data.feeds import Feed
from ptq.embedded import PROPERTY, EmbeddedRecipe, PinnedPlacement
from ptq.errors import UnsupportedError
from ptq.evaluate.latency import measure_latencies
from ptq.graph.biases import add_to_biases
from ptq.graph.block_weights import QuantizeBlocks
from ptq.graph.emit_dynamic import DynamicForm, emit_dynamic
from ptq.graph.emit_integer import fuse_integer
from ptq.graph.emit_qdq import Emitted
from ptq.graph.emit_weight_only import WeightFormat, emit_weight_only
from ptq.graph.publish import check_file
from ptq.graph.save import save_model, to_bytes
from ptq.graph.scheme import SchemeEmitted
from ptq.graph.types import Model
from ptq.graph.variants import Variant
from ptq.inputs import Inputs
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.blocks import BlockFormat
from ptq.numerics.pairs import fit_pairs, orders_of
from ptq.numerics.qtype import QType
from ptq.overrides import Overrides
from ptq.place.costs import Region
from ptq.place.memory import Choice, Memory, recall
from ptq.plan import NodePlan, Plan
from ptq.progress import Stages
from ptq.report.placement import ALL, Candidate, Placement
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.session import open_session
from ptq.source import Source, not_placed
from ptq.targets import load_target
from ptq.trial import Trial
from ptq.version import Version
from ptq.weight_refining import NOTHING, WeightRefiner
from ptq.weight_rounding import RoundedWeights

#: The candidate whose weights are stored in few bits and unpacked when the model is loaded.
UNPACKED = "weights unpacked at load"


class SchemeWriter:
    """Writes the dynamic or the weight-only version of one model.

    Args:
        source: the float model.
        inputs: the data; only what looks at outputs needs any.
        config: the settings; its scheme is one of the two.
        stages: told of what takes time.
        convolutions: whether convolutions are among what dynamic quantization tries. Their kernel
            is not fused, so that it is for a placement to say where they pay.
    """

    def __init__(
        self,
        source: Source,
        inputs: Inputs,
        config: QuantizeConfig,
        stages: Stages,
        *,
        convolutions: bool,
    ) -> None:
        self.source = source
        self.inputs = inputs
        self.config = config
        self.stages = stages
        self.convolutions = convolutions
        #: whether products are computed from codes, or weights only stored in them
        self.kernels = True
        self.target = load_target(config.target)
        self.overrides = Overrides(source.model, config)
        #: what looking at outputs found, for weights as they are written now
        self.refined = NOTHING

    def foresee(self) -> tuple[tuple[NodePlan, ...], int]:
        """Return what would become of every node, and how many bytes the model would have."""
        model = self.source.model.clone()
        emitted = self._emit(model, self.config.formats[0], {})
        return emitted.nodes, len(to_bytes(model))

    def variants(self) -> Mapping[str, Variant]:
        """Return nothing: there is one form only."""
        return {}

    def write(
        self,
        path: Path,
        form: FileFormat,
        keep_float: Mapping[str, str] | None = None,
        variants: Mapping[str, Variant] | None = None,
    ) -> Version:
        """Write the model, with these nodes in float beside those that the user excludes.

        Raises:
            UnsupportedError: it has no weight that could be quantized.
        """
        kept = dict(keep_float or {})
        with self.stages.stage("emit"):
            model = self.source.model.clone()
            emitted = self._emit(model, form, kept)
            if not emitted.weights:
                raise UnsupportedError(
                    f"'{self.source.path.name}' has no weight that --scheme {self.config.scheme} "
                    "could quantize; `ptq inspect` shows what it is made of"
                )
            if form == "integer" and self.config.scheme == "dynamic":
                fuse_integer(model)
            model.metadata_props[PROPERTY] = self._recipe(form, kept).to_json()
            self.source.rescaling.write(model)
            save_model(model, path)
        with self.stages.stage("check"):
            check_file(path)
            coverage = measure_coverage(path, [n.name for n in emitted.nodes if n.integer])
        plan = Plan(target=self.target.name, tensors={}, nodes=emitted.nodes)
        done = Emitted(weights=emitted.weights, biases=0, widened=(), coarse=(), scales={})
        return Version(kept, plan, done, coverage, self._regions(emitted.nodes))

    def write_pinned(self, path: Path, form: FileFormat, placement: PinnedPlacement) -> Version:
        """Write the model with just this placement.

        Raises:
            ConfigError: the placement is of another model.
            UnsupportedError: it has no weight that could be quantized.
        """
        placement.require_nodes(node.name or "" for node in self.source.model.graph)
        self.convolutions, self.kernels = placement.convolutions, not placement.unpacked
        return self.write(path, form, placement.reasons())

    def error(self, trial: Trial) -> float:
        """Return the error of the model with weights rounded to nearest, before any file."""
        model = self.source.model.clone()
        self._emit(model, self.config.formats[0], {}, refined=NOTHING)
        return trial.error(to_bytes(model))

    def settle(
        self, path: Path, form: FileFormat, feed: Feed, memory: Memory, *, seconds: float
    ) -> tuple[Version, Placement]:
        """Write the weight-only model with kernels on codes, or with weights unpacked at load.

        Which is faster depends on the shapes: kernels win where memory is what limits, as for a
        single row, and lose on many rows.

        Args:
            path: the file, which is there with kernels on codes.
            form: how it is written.
            feed: what to run.
            memory: where the choice of an earlier run may be.
            seconds: about how long to time.
        """
        if self.config.block_quantizer().floats:  # there is no kernel to compare with
            self.kernels = False
            chosen = Placement(mode="auto", candidates=(), chosen=UNPACKED, seconds=0.0)
            return self.write(path, form), chosen
        choice, placement = recall(memory, lambda: self._time(path, form, feed, seconds))
        self.kernels = choice.chosen == ALL
        return self.write(path, form), placement

    def refine(self, path: Path, form: FileFormat, version: Version, *, threads: int) -> Version:
        """Write a weight-only version again, with what looking at the outputs of layers finds.

        Each step is taken where it makes the outputs of the network better, on samples that were
        kept out.

        Args:
            path: the file.
            form: how it is written: weights are rounded in the blocks that this form has.
            version: what is there.
            threads: within an operator.
        """
        assert self.inputs.calibration is not None, "a run asks for it"
        kept, written = dict(version.keep_float), {}

        def record(name: str, array: AnyArray, layout: BlockFormat) -> QTensor:
            written[name] = self._nearest(array, layout)
            return written[name]

        def emit(found: RoundedWeights) -> Model:
            model = self.source.model.clone()
            self._emit(model, form, kept, refined=found)
            return model

        self._emit(self.source.model.clone(), form, kept, quantize_weight=record)
        refiner = WeightRefiner(
            self.source, written, emit, self.inputs.calibration, self.stages, threads,
            self.config.seed,
        )  # fmt: skip
        self.refined, done = refiner.refine(
            rounding=self.config.rounding_method(), biases=self.config.bias_correct
        )
        if any(step.kept for step in done):
            version = self.write(path, form, kept)
        return replace(version, refinements=done)

    def written(self) -> dict[str, tuple[F32, BlockFormat]]:
        """Return the weights that are quantized, as matrices, and their blocks, by name."""
        found: dict[str, tuple[F32, BlockFormat]] = {}

        def record(name: str, array: AnyArray, layout: BlockFormat) -> QTensor:
            found[name] = np.asarray(array, np.float32), layout
            return self._nearest(array, layout)

        model = self.source.model.clone()
        self._emit(model, self.config.formats[0], {}, quantize_weight=record)
        return found

    def _time(self, path: Path, form: FileFormat, feed: Feed, seconds: float) -> Choice:
        unpacked = path.with_name(f"{path.name}.unpacked")
        self.kernels = False
        version = self.write(unpacked, form)
        with self.stages.stage("place"):
            openers = [partial(open_session, p) for p in (path, unpacked)]
            times = measure_latencies(openers, feed, threads=1, seconds=seconds)
        faster = times.speedups[1].verdict == "faster"
        candidates = tuple(
            Candidate(name=name, integer_nodes=count, measured_ms=timing.median_ms)
            for name, count, timing in zip(
                (ALL, UNPACKED), (version.emitted.weights, 0), times.timings, strict=True
            )
        )
        chosen = UNPACKED if faster else ALL
        return Choice(candidates=candidates, chosen=chosen, keep_float={})

    def _emit(
        self,
        model: Model,
        form: FileFormat,
        kept: Mapping[str, str],
        *,
        refined: RoundedWeights | None = None,
        quantize_weight: QuantizeBlocks | None = None,
    ) -> SchemeEmitted:
        """Rewrite the model; convolutions that are kept in float are only stored in few bits."""
        convolutions = [n.name or "" for n in model.graph if n.op_type == "Conv"]
        asked = not_placed(self.source.model, self.config)
        exclude = {**asked, **{n: why for n, why in kept.items() if n not in convolutions}}
        if self.config.scheme == "weight-only":
            layout = WeightFormat(
                bits=self.config.bits,
                block=self.config.block,
                symmetric=self.config.weights_symmetric,
                portable=form == "qdq",
                kernels=self.kernels and not self.config.block_quantizer().floats,
                widths=self.overrides.widths(),
                offsets=self.config.block_quantizer().offsets,
            )
            found = self.refined if refined is None else refined
            if quantize_weight is None:
                quantize_weight = partial(found.quantize, nearest=self._nearest)
            add_to_biases(model, found.shifts)
            return emit_weight_only(model, layout, quantize_weight=quantize_weight, exclude=exclude)
        tried = [n for n in convolutions if self.convolutions and n not in kept]
        per_channel = self.config.weights == "per-channel"
        shape = DynamicForm(per_channel=per_channel, convolutions=tried)
        return emit_dynamic(model, shape, quantize_weight=self._quantize_weight, exclude=exclude)

    def _nearest(self, array: AnyArray, layout: BlockFormat) -> QTensor:
        """Return a weight in blocks, by the method of its width."""
        return self.config.block_quantizer(layout.qtype.bits).quantize(array, layout)

    def _quantize_weight(self, node: str, w: np.ndarray, axis: int, symmetric: bool) -> QTensor:
        settings, qtype = self.overrides.weight(node), QType.parse(self.target.weight)
        tensor = settings.method.quantize(
            w, qtype, axis=axis if settings.per_channel else None, symmetric=symmetric
        )
        if not self.target.saturates:
            return tensor
        return fit_pairs(w, tensor, orders_of(w.ndim, axis, convolution=w.ndim > 2))

    def _regions(self, nodes: tuple[NodePlan, ...]) -> tuple[Region, ...]:
        """Return what is integer: each by itself, for its neighbours are in float."""
        made = {
            n.name or "": tuple(v.name or "" for v in n.outputs) for n in self.source.model.graph
        }
        return tuple(
            Region(n.name, frozenset({n.name}), makes=frozenset(made[n.name]))
            for n in nodes
            if n.integer
        )

    def _recipe(self, form: FileFormat, kept: Mapping[str, str]) -> EmbeddedRecipe:
        dynamic = self.config.scheme == "dynamic"
        looks = self.config.refines or self.config.awq
        data = self.inputs.calibration if looks else None
        return EmbeddedRecipe(
            ptq=__version__,
            config=msgspec.structs.replace(self.config, format=form),
            model_sha256=self.source.digest,
            placement=PinnedPlacement(
                keep_float=tuple(sorted(kept)),
                convolutions=dynamic and self.convolutions,
                unpacked=not dynamic and not self.kernels,
            ),
            data_sha256=data.digest() if data is not None else None,
            samples=len(data) if data is not None else None,
            random_data=data is not None and data.synthetic,
            images=self.inputs.images if data is not None else None,
        )
