"""One quantization under way: from sites to a checked draft of the integer model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from ptq import __version__
from ptq.calib import Range, Solver, parse_method
from ptq.calibration import Calibration, ObserverSettings, observe_apart, observe_tensors
from ptq.config import FileFormat, QuantizeConfig
from ptq.data import Dataset, Feed
from ptq.data.noise import NoiseDataset
from ptq.datafree import known_means, known_stats, observed_model, what_it_rests_on
from ptq.embedded import PROPERTY, EmbeddedRecipe, PinnedPlacement
from ptq.errors import CalibrationError, ConfigError
from ptq.finetuning import Trainable, fine_tune, import_trained, judged_on
from ptq.graph.biases import add_to_biases
from ptq.graph.emit_integer import fuse_integer
from ptq.graph.emit_qdq import Emitted, KnownWeights, emit_qdq
from ptq.graph.held import values_by_name
from ptq.graph.norms import tweak_norms
from ptq.graph.passes.edit import constant
from ptq.graph.publish import check_file
from ptq.graph.save import save_model, to_bytes
from ptq.graph.scales import with_scales_as_inputs
from ptq.graph.site import Site
from ptq.graph.site_weights import quantize_site_weight
from ptq.graph.sites import Sites, plan_nodes, requests
from ptq.graph.store_narrow import store_narrow
from ptq.graph.switches import SwitchedModel, with_switches
from ptq.graph.tensor_map import tensors_held, write_map
from ptq.graph.types import Model
from ptq.graph.variants import Variant, apply_variants, possible_variants
from ptq.graph.workload import products_per_value
from ptq.inputs import Inputs
from ptq.looked_at import LookedAt, first_feeds
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F64
from ptq.numerics.coding import coding_of
from ptq.numerics.qtype import QType
from ptq.overrides import Overrides
from ptq.place.costs import regions_of
from ptq.plan import Decision, Plan
from ptq.plan.make import RangeChoice, decide
from ptq.plan.replace import with_decisions
from ptq.plan.request import Request
from ptq.progress import Stages
from ptq.ranging import Candidates, Part, Split, measurements, search, searched
from ptq.refining import Refined, Refiner, Taken
from ptq.report.data_free import DataFree
from ptq.report.ranges import RangeSearch, range_line, two_sided_line
from ptq.rounding import Halves
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.host import host_target
from ptq.search.qcode import search_exponents
from ptq.shrinking import best_factors, shrunk
from ptq.source import Source, find_configured_sites, require_sites
from ptq.stats.base import TensorStats
from ptq.targets import load_target
from ptq.train.block_graph import fake_activations
from ptq.train.network import with_quantizers
from ptq.train.phases import Widths, shared_out
from ptq.trial import LabelTrial, Trial
from ptq.version import Version
from ptq.weights.base import WeightQuantizer
from ptq.weights.seqmse import SeqMseQuantizer

#: How often sites that onnxruntime does not fuse are handed back to float before giving up.
_REPAIRS = 3

#: Width of weights of which no pair saturates 16 bits: 2 · 255 · 63 < 2^15.
_BITS_OF_PAIRS = 7

#: How much finer than at the start what a layer reads may become while it is trained.
_BIAS_MARGIN = 2.0**-6

#: Samples on which a search over the network's output measures each trial.
_SEARCH_SAMPLES = 16

#: Samples on which the outputs of layers are looked at, those included that choose.
_REFINED_SAMPLES = 80

#: The same where it is learned whether each weight is rounded up or down: of few, too much.
_LEARNED_SAMPLES = 528


class Work:
    """Writes static versions of one model: statistics are kept while sites go back to float.

    Attributes:
        job: a training job of this model that was trained elsewhere; ``None`` to train here.
    """

    def __init__(
        self,
        source: Source,
        inputs: Inputs,
        config: QuantizeConfig,
        stages: Stages,
        threads: int,
        job: Path | None = None,
    ) -> None:
        self.source = source
        self.job = job
        self.inputs = inputs
        self.config = config
        self.stages = stages
        self.threads = threads
        self.target = load_target(config.target)
        self.solver = config.solver()
        self.overrides = Overrides(source.model, config)
        self.calibration: Calibration | None = None
        #: by the nodes that stay in float
        self.refined: dict[frozenset[str], Refined] = {}
        if inputs.statistics is not None:
            self.calibration = Calibration.load(inputs.statistics)
            self.calibration.require_fresh(source, inputs.statistics, inputs.calibration)
        self.range_search: RangeSearch | None = None
        #: statistics without the samples that a search over ranges measures on
        self.apart: Mapping[str, TensorStats] | None = None
        if self.solver.runs_network and inputs.calibration is None:
            raise ConfigError(f"--calib {config.calib} runs the network; give --calib-data")

    def write(
        self,
        path: Path,
        form: FileFormat,
        keep_float: Mapping[str, str] | None = None,
        variants: Mapping[str, Variant] | None = None,
    ) -> Version:
        """Write the quantized model, and take back to float what the runtime would not fuse.

        Args:
            path: the file.
            form: how it is written.
            keep_float: nodes that stay in float, with the reason.
            variants: nodes that are written in another form.
        """
        kept = dict(keep_float or {})
        for _ in range(_REPAIRS):
            version = self._write(path, form, kept, variants or {})
            if not version.coverage.unfused or self.target.runtime != "onnxruntime":
                break
            why = "onnxruntime does not fuse it into an integer kernel"
            kept = {**kept, **dict.fromkeys(version.coverage.unfused, why)}
        return version

    def write_pinned(self, path: Path, form: FileFormat, placement: PinnedPlacement) -> Version:
        """Write the quantized model with just this placement.

        Raises:
            ConfigError: the placement is of another model.
        """
        placement.require_nodes(node.name or "" for node in self.source.model.graph)
        return self._write(path, form, placement.reasons(), placement.variant_of())

    def refine(self, path: Path, form: FileFormat, version: Version) -> Version:
        """Write a version again, with what is found by looking at the outputs of its layers.

        Each step is taken where it makes the outputs of the network better, on samples that it has
        not seen. Later versions with the same nodes in float have them, too.

        Raises:
            ConfigError: there is no calibration data.
        """
        kept, plan, config = version.keep_float, version.plan, self.config
        sites = self._sites(kept)
        looked_at = self._looked_at()
        trial = self._trial(looked_at)

        # of the factors that steps try one after the other, those of the last: ranges take time
        known: list[tuple[Mapping[str, F64], KnownWeights]] = []

        def emit(refined: Refined) -> tuple[Model, Mapping[str, QTensor]]:
            model = self.source.model.clone()
            if not known or known[0][0] is not refined.factors:
                known[:] = [(refined.factors, KnownWeights())]
            emitted = self._emit(model, kept, plan, refined=refined, known=known[0][1])
            return model, emitted.tensors

        def choose(site: Site, written: QTensor, halves: Halves) -> F64 | None:
            method = self.overrides.weight(site.name).method
            if not isinstance(method, SeqMseQuantizer):
                return None
            return best_factors(site, written, halves, method, partial(self._by, symmetric))

        symmetric = {n.name: n.weight_symmetric for n in plan.nodes}
        refiner = Refiner(
            self.source, sites, emit, choose,
            lambda model: trial.error(to_bytes(model)),
            looked_at.refined_on, self.stages, self.threads,
            known_means(self.source) if config.data_free else {},
            fake_activations(sites, plan.tensors), config.seed,
            looked_at.labels is not None,
        )  # fmt: skip
        found, done = refiner.refine(
            ranges=config.searches_weights,
            rounding=config.rounding_method(),
            biases=config.corrects_biases,
            norms=config.tweak_norms,
            train=partial(self._trained, version) if config.fine_tune else None,
        )
        if any(step.kept for step in done):
            self.refined[frozenset(kept)] = found
            version = self._write(path, form, kept, version.variants, plan)
        return replace(version, refinements=done)

    def _write(
        self,
        path: Path,
        form: FileFormat,
        kept: Mapping[str, str],
        variants: Mapping[str, Variant],
        plan: Plan | None = None,
    ) -> Version:
        sites = self._sites(kept)
        if plan is None:
            plan = self._plan(sites, kept)
        plan = with_decisions(plan, self.refined.get(frozenset(kept), Refined()).decisions)
        with self.stages.stage("emit"):
            model = self.source.model.clone()
            emitted = self._emit(model, kept, plan)
            apply_variants(model, variants)
            held = tensors_held(model, values_by_name(self.source.model.graph))
            if form == "integer":
                fuse_integer(model)
            self._store(model, emitted)
            write_map(model, held)
            recipe = self._recipe(form, PinnedPlacement.of(kept, variants))
            model.metadata_props[PROPERTY] = recipe.to_json()
            self.source.rescaling.write(model)
            save_model(model, path)
        with self.stages.stage("check"):
            check_file(path)
            coverage = measure_coverage(path, [s.name for s in sites.sites])
        narrow = min(emitted.widths, default=8) < 8
        coding = coding_of(emitted.tensors.values()) if narrow else None
        # tensors are in the file, and several versions may be kept
        emitted = replace(emitted, tensors={}, coding=coding)
        return Version(kept, plan, emitted, coverage, regions_of(sites), variants)

    def _store(self, model: Model, emitted: Emitted) -> None:
        """Store weights in fewer bits than int8, for a runtime that is known to widen them."""
        if self.target.runtime == "onnxruntime" and min(emitted.widths, default=8) < 8:
            store_narrow(model)

    def variants(self) -> Mapping[str, Variant]:
        """Return which nodes could be written in another form that may be faster.

        None where kernels saturate: folded or shifted, other codes would be neighbours.
        """
        return {} if self.target.saturates else possible_variants(self.source.model)

    def switched(self, version: Version) -> SwitchedModel:
        """Return the float model in which every site of a version can be quantized, or not."""
        model, emitted = self.source.model.clone(), self.source.model.clone()
        self._emit(emitted, version.keep_float, version.plan, absorb=False)
        sites = self._find(model, version.keep_float)
        return with_switches(model, sites, version.plan, emitted, self.source.folder)

    def integer_without(self, keep_float: Mapping[str, str]) -> frozenset[str]:
        """Return the sites that there are where these nodes stay in float."""
        return frozenset(s.name for s in self._find(self.source.model, keep_float).sites)

    def products_per_value(self, keep_float: Mapping[str, str]) -> dict[str, float]:
        """Return how many products go into a value that a linear operator puts out, by name."""
        return products_per_value(self._find(self.source.model, keep_float))

    def _sites(self, keep_float: Mapping[str, str]) -> Sites:
        sites = self._find(self.source.model, keep_float)
        require_sites(sites, self.source, self.target)
        return sites

    def _find(self, model: Model, keep_float: Mapping[str, str]) -> Sites:
        return find_configured_sites(model, self.target, self.config, keep_float)

    def _emit(
        self,
        model: Model,
        keep_float: Mapping[str, str],
        plan: Plan,
        *,
        absorb: bool = True,
        refined: Refined | None = None,
        known: KnownWeights | None = None,
    ) -> Emitted:
        if refined is None:
            refined = self.refined.get(frozenset(keep_float), Refined())
        plan = with_decisions(plan, refined.decisions)
        add_to_biases(model, refined.shifts)
        tweak_norms(model, refined.norms)
        sites = self._find(model, keep_float)
        guard = self.target.runtime == "onnxruntime"
        weights = {s.name: s.weight.name or "" for s in sites.sites if s.weight is not None}

        def quantize(node: str, w: np.ndarray, axis: int, symmetric: bool) -> QTensor:
            method = self.overrides.weight(node).method
            by = shrunk(method, refined.factors, weights[node])
            return self._quantize_weight(node, w, axis, symmetric, by)

        return emit_qdq(
            model, sites, plan, quantize,
            absorb=absorb, guard=guard, rounded=refined.weights, given=refined.given,
            known=known,
        )  # fmt: skip

    def _quantize_weight(
        self, node: str, w: np.ndarray, axis: int, symmetric: bool, method: WeightQuantizer
    ) -> QTensor:
        return method.quantize(
            w,
            replace(QType.parse(self.target.weight), bits=self.overrides.weight(node).bits),
            axis=axis if self.overrides.weight(node).per_channel else None,
            symmetric=symmetric,
        )

    def _by(
        self, symmetric: Mapping[str, bool], site: Site, w: np.ndarray, method: WeightQuantizer
    ) -> QTensor:
        """Return the weight of a site, which has output channels, by another method."""
        assert site.weight_axis is not None, "a batch of matrices is not rounded"
        return self._quantize_weight(site.name, w, site.weight_axis, symmetric[site.name], method)

    def at(self, bits: int, method: str = "", **settings: int) -> Work:
        """Return a quantization with weights of another width, of the same statistics.

        Args:
            bits: the width.
            method: the weight quantizer; empty for that of the settings.
            settings: others of the configuration that are to differ.
        """
        method = method or self.config.weight_method
        config = msgspec.structs.replace(self.config, bits=bits, weight_method=method, **settings)
        other = Work(self.source, self.inputs, config, self.stages, self.threads)
        other.calibration, other.range_search = self.calibration, self.range_search
        return other

    def emitted(self, version: Version) -> tuple[Model, Emitted]:
        """Return the quantized model of a version as it is before its weights are packed."""
        model = self.source.model.clone()
        return model, self._emit(model, version.keep_float, version.plan)

    def trainable(self, version: Version, before: Refined) -> Trainable:
        """Return the float model with the quantizers of the training method.

        Args:
            version: whose plan training starts from.
            before: biases and norms to start from.

        Raises:
            UnsupportedError: no layer becomes integer.
        """
        model = self.source.model.clone()
        add_to_biases(model, before.shifts)
        tweak_norms(model, before.norms)
        sites = self._find(model, version.keep_float)
        # codes that would saturate are not to be changed once the network is trained with them
        most = _BITS_OF_PAIRS if self.target.saturates else 8

        def start(site: Site, array: np.ndarray) -> QTensor:
            def quantize(node: str, w: np.ndarray, axis: int, symmetric: bool) -> QTensor:
                set_for = self.overrides.weight(node)
                bits = min(set_for.bits, most)
                qtype = replace(QType.parse(self.target.weight), bits=bits)
                per_channel = axis if set_for.per_channel else None
                return set_for.method.quantize(w, qtype, axis=per_channel, symmetric=True)

            read = version.plan.tensors[site.activations[0].name or ""].step
            scale = np.float32(read * _BIAS_MARGIN)
            bias = constant(site.bias) if site.rule.integer_bias else None
            return quantize_site_weight(site, array, bias, scale, quantize, symmetric=True).tensor

        widths = Widths(self.config.bits, self.config.activation_bits)
        method = self.config.training_method()
        network = with_quantizers(model, sites, version.plan, method, start, widths, before.latent)
        return Trainable(network, sites, version.plan, self.source, self.config)

    def _trained(self, version: Version, before: Refined) -> Taken[Refined]:
        """Return what training makes of a version, and of how many layers."""
        if self.job is not None:
            found = import_trained(self.trainable(version, before), before, self.job)
            return Taken(found, len(found.given))
        data = self.inputs.calibration
        assert data is not None, "refining asks for it"
        chosen_on = LookedAt.chosen(min(len(data), self._looked_at_samples()))
        phases, found = self.config.training_widths(), before
        for widths, steps in zip(phases, shared_out(self.config.steps, len(phases)), strict=True):
            work = self.at(widths.weights, activation_bits=widths.activations, steps=steps)
            planned = replace(version, plan=work._plan(self._sites(version.keep_float), {}))
            last = widths == phases[-1]
            trainable = work.trainable(version if last else planned, found)
            found = fine_tune(trainable, found, data, chosen_on, self.stages, self.threads)
        return Taken(replace(found, latent={}), len(found.given))

    def _trial(self, looked_at: LookedAt) -> Trial | LabelTrial:
        if looked_at.labels is not None:
            return LabelTrial(looked_at.chosen_on, looked_at.labels, self.source)
        return Trial(list(looked_at.chosen_on), self.source)

    def _looked_at(self) -> LookedAt:
        """Return the samples to refine on; those that a job was judged on, if it is a job's."""
        if self.job is not None:
            return judged_on(self.job)
        option, count = self.config.refinements[0], self._looked_at_samples()
        return LookedAt.of(self._feeds(option, count))

    def _looked_at_samples(self) -> int:
        return _LEARNED_SAMPLES if self.config.learns_rounding else _REFINED_SAMPLES

    def integer_sites(self, version: Version) -> Sites:
        """Return the sites of a version."""
        return self._sites(version.keep_float)

    def error(self, trial: Trial) -> float:
        """Return the error of the model with all in integers that can be, before any file."""
        return trial.error(self._emitted_bytes(self._plan(self._sites({}), {}), {}))

    def observed(self) -> Calibration:
        """Return the statistics that the plan rests on."""
        assert self.calibration is not None, "planning comes first"
        return self.calibration

    # -- statistics and ranges ----------------------------------------------------------------

    def _plan(self, sites: Sites, keep_float: Mapping[str, str]) -> Plan:
        asked = requests(sites)
        self._observe([r.observed for r in asked if r.observed])
        common, chosen = self._chosen_ranges()
        choice, solvers = self._choice(common), {**chosen, **self.overrides.solvers(sites)}
        others = {tensor: self._choice(solver) for tensor, solver in solvers.items()}
        bits = self.overrides.activation_widths(sites)
        nodes = plan_nodes(self.source.model, sites, symmetric=self.config.weights_symmetric)
        with self.stages.stage("solve"):
            decisions = decide(asked, self.observed().stats, choice, others=others, bits=bits)
        plan = Plan(target=self.target.name, tensors=decisions, nodes=nodes)
        if not self.config.searches_output:
            return plan
        feeds = self._feeds("--qcode-objective output", _SEARCH_SAMPLES)
        trial = Trial(feeds, self.source)
        fixed = self._search(trial, plan, keep_float, solvers)
        decisions = decide(
            asked, self.observed().stats, choice, others=others, fixed=fixed, bits=bits
        )
        searched = msgspec.structs.replace(plan, tensors=decisions)
        # the search simulates: biases stay as they were rounded for the first scales. What ships is
        # measured as it ships, and the better one kept
        errors = [trial.error(self._emitted_bytes(p, keep_float)) for p in (plan, searched)]
        return searched if errors[1] < errors[0] else plan

    def _chosen_ranges(self) -> tuple[Solver, dict[str, Solver]]:
        """Return the method of all tensors, and those of single ones where a search chose them.

        It searches once, with everything in integers that may be: so the result does not depend on
        the placements that were tried.
        """
        if not self.solver.runs_network:
            return self.solver, {}
        if self.range_search is None:
            self.range_search = self._search_ranges()
        found = self.range_search
        return parse_method(found.chosen), {t: parse_method(m) for t, m in found.tensors.items()}

    def _search_ranges(self) -> RangeSearch:
        data = self.inputs.calibration
        assert data is not None, "the constructor asks for it"
        split, sites = Split.of(len(data)), self._sites({})
        trial = Trial(list(Part(data, split.chosen_on)), self.source)
        asked = requests(sites)
        stats: Mapping[str, TensorStats] = self.observed().stats
        if split.solved_from:
            part = Part(data, split.solved_from)
            stats = self.apart or self._observed_of(part, asked)
        nodes = plan_nodes(self.source.model, sites, symmetric=self.config.weights_symmetric)
        simulated, weights = self.config.target != host_target(), KnownWeights()

        def errors_of(
            decisions: dict[str, Decision], limit: float, samples: Sequence[int] | None
        ) -> F64 | None:
            plan = Plan(target=self.target.name, tensors=decisions, nodes=nodes)
            model = self.source.model.clone()
            self._emit(model, {}, plan, known=weights)
            return trial.errors(
                to_bytes(model), limit, samples, simulated=simulated, threads=self.threads
            )

        candidates = Candidates(
            asked,
            stats,
            self._choice,
            {t: self._choice(s) for t, s in self.overrides.solvers(sites).items()},
            errors_of,
            self.overrides.activation_widths(sites),
        )
        with self.stages.stage("search", measurements(self.solver)) as step:
            found = search(self.solver, candidates, len(trial.feeds), step)
        return searched(found, apart=bool(split.solved_from))

    def _observed_of(self, part: Dataset, asked: Sequence[Request]) -> dict[str, TensorStats]:
        """Return statistics of some of the samples, for a search that measures on others."""
        wanted = [r.observed for r in asked if r.observed]
        with self.stages.stage("observe", part.expected) as step:
            return observe_tensors(self.source, wanted, part, self._observer(), on_feed=step).stats

    def _observer(self) -> ObserverSettings:
        return ObserverSettings(self.config.sample_size, self.config.ema_decay, self.threads)

    def notices(self, plan: Plan) -> tuple[str, ...]:
        """Return how ranges were chosen, where a search chose them or a paper has none."""
        return *self._searched(), *two_sided_line(self.config.calib, plan, self.observed().stats)

    def _searched(self) -> tuple[str, ...]:
        found = self.range_search
        if found is None:
            return ()
        calib = self.config.calib.partition(":")[0]
        if found.held_out:
            return (range_line(found, calib),)
        return range_line(found, calib), (
            f"--calib {calib} chose on the samples that it solved the candidates from; give "
            "--calib-data with at least 8 samples to choose on others"
        )

    def _choice(self, solver: Solver) -> RangeChoice:
        """Return how a range method's ranges become scales."""
        middle = self.config.symmetric or self.target.activation_symmetric
        qtype = QType.parse(self.target.activation)
        return RangeChoice(solver, qtype, middle or solver.power_of_two)

    def _observe(self, tensors: Sequence[str]) -> None:
        """Observe what has not been observed yet.

        At most twice, and either time what does not depend on the placements that were tried: what
        onnxruntime fuses depends on what is read, and with it the last bit of a value. So the
        statistics, and the file, depend only on the placement that is written.
        """
        known = self.calibration.stats if self.calibration is not None else {}
        missing = [t for t in tensors if t not in known]
        if not missing:
            return
        if self.inputs.statistics is not None:
            raise CalibrationError(
                f"'{self.inputs.statistics}' lacks tensor '{missing[0]}'; run `ptq calibrate` with "
                "the same --target, --op-types and --exclude"
            )
        data = self.inputs.calibration
        if data is None:
            raise ConfigError("quantizing needs calibration data; give --calib-data or --stats")
        asked = requests(self._find(self.source.model, {}))
        wanted = [r.observed for r in asked if r.observed]
        if self.calibration is not None:
            computed = (r.tensor for r in asked if r.constant is None)
            wanted = list(dict.fromkeys((*computed, *tensors)))
        source = observed_model(self.source) if self.config.data_free else self.source
        with self.stages.stage("observe", data.expected) as step:
            found, apart = observe_apart(
                source, wanted, data, self._observer(), self._kept_out(data), on_feed=step
            )
        # a later pass is for other tensors, of which a search that is done knows nothing
        self.apart = self.apart or apart
        stats = {**found.stats, **self._from_batchnorms(wanted), **known}
        self.calibration = Calibration(found.header, stats)
        self._observe(tensors)

    def _kept_out(self, data: Dataset) -> tuple[int, ...]:
        """Return the samples that a search over ranges measures on, if it can have its own."""
        if not self.solver.runs_network:
            return ()
        split = Split.of(len(data))
        return split.chosen_on if split.solved_from else ()

    def _from_batchnorms(self, wanted: Collection[str]) -> dict[str, TensorStats]:
        """Return the statistics that need no data, where there is none."""
        if not self.config.data_free:
            return {}
        known = known_stats(self.source, self.config.ema_decay)
        return {tensor: stats for tensor, stats in known.items() if tensor in wanted}

    def data_free(self) -> DataFree | None:
        """Return what ranges rest on where there is no data."""
        data = self.inputs.calibration
        if not self.config.data_free or not isinstance(data, NoiseDataset):
            return None
        return what_it_rests_on(self.source, data, list(self.observed().stats))

    def _feeds(self, option: str, count: int) -> list[Feed]:
        """Return the first calibration samples, for an option that runs the network on them."""
        if self.inputs.calibration is None:
            raise ConfigError(f"{option} runs the network; give --calib-data")
        return first_feeds(self.inputs.calibration, count)

    def _emitted_bytes(self, plan: Plan, keep_float: Mapping[str, str]) -> bytes:
        model = self.source.model.clone()
        self._emit(model, keep_float, plan)
        return to_bytes(model)

    def _search(
        self, trial: Trial, plan: Plan, keep_float: Mapping[str, str], keep: Collection[str]
    ) -> dict[str, Range]:
        """Search power-of-two scales by the error of the network's output; some stay."""
        model = self.source.model.clone()
        emitted = self._emit(model, keep_float, plan, absorb=False)
        scaled = with_scales_as_inputs(model, emitted.scales, self.source.folder)
        with self.stages.stage("search", len(plan.tensors)) as step:
            found = search_exponents(
                scaled, plan.tensors, trial.score, trial.feeds, keep=keep, on_tensor=step
            )
        return found.ranges

    def _recipe(self, form: FileFormat, placement: PinnedPlacement) -> EmbeddedRecipe:
        header = self.observed().header
        return EmbeddedRecipe(
            ptq=__version__,
            config=msgspec.structs.replace(self.config, format=form),
            model_sha256=self.source.digest,
            placement=placement,
            data_sha256=header.data_sha256,
            samples=header.samples,
            random_data=header.synthetic,
            images=self.inputs.images,
        )
