"""One quantization under way: from sites to a checked draft of the integer model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from ptq import __version__
from ptq.calib import Range
from ptq.calibration import Calibration, ObserverSettings, observe_tensors
from ptq.config import FileFormat, QuantizeConfig
from ptq.data import Dataset, Feed
from ptq.errors import CalibrationError, ConfigError
from ptq.graph.emit_integer import fuse_integer
from ptq.graph.emit_qdq import Emitted, emit_qdq
from ptq.graph.publish import check_file
from ptq.graph.save import save_model, to_bytes
from ptq.graph.scales import with_scales_as_inputs
from ptq.graph.sites import Sites, plan_nodes, requests
from ptq.graph.types import Model
from ptq.graph.variants import Variant, apply_variants, possible_variants
from ptq.numerics.affine import QTensor
from ptq.numerics.qtype import QType
from ptq.place.costs import Region
from ptq.plan import Plan
from ptq.plan.make import RangeChoice, decide
from ptq.progress import Stages
from ptq.proof import Evidence
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.session import open_session, run
from ptq.search.qcode import relative_error, search_exponents
from ptq.source import Source, find_configured_sites, require_sites
from ptq.targets import load_target
from ptq.version import Version

#: How often sites that onnxruntime does not fuse are handed back to float before giving up.
_REPAIRS = 3

#: Samples on which a search over the network's output measures each trial.
_SEARCH_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a quantization works from, beside the model.

    Attributes:
        calibration: the calibration data.
        statistics: a statistics file to use in its place.
        evaluation: held-out data to measure accuracy on.
        labels: the right class of every evaluation row.
    """

    calibration: Dataset | None = None
    statistics: Path | None = None
    evaluation: Dataset | None = None
    labels: np.ndarray | None = None

    def evidence(self) -> Evidence | None:
        """Return what accuracy can be measured on: held-out data if there is any."""
        if self.evaluation is not None:
            return Evidence(self.evaluation, self.labels, held_out=True)
        if self.labels is not None:
            raise ConfigError("labels need evaluation data; give --eval-data as well")
        if self.calibration is not None:
            return Evidence(self.calibration, None, held_out=False)
        return None

    def notices(self) -> tuple[str, ...]:
        """Return what the readers had to say, once each."""
        said = [n for data in (self.calibration, self.evaluation) if data for n in data.notices]
        return tuple(dict.fromkeys(said))


def _regions(sites: Sites) -> tuple[Region, ...]:
    """Return the sites as what can be placed, with the tensors between them."""
    return tuple(
        Region(
            name=site.name,
            members=frozenset(n.name or "" for n in (site.node, site.absorbed) if n is not None),
            reads=tuple(v.name or "" for v in site.activations if not v.is_initializer()),
            writes=tuple(v.name or "" for v in site.outputs),
            dequantizes=not site.rule.output,
            leads=site.rule.role == "linear",
        )
        for site in sites.sites
    )


class _Trial:
    """A few feeds, and what the float model makes of them."""

    def __init__(self, feeds: list[Feed], source: Source) -> None:
        reference = open_session(to_bytes(source.model), folder=source.folder)
        self.feeds = feeds
        self.wanted = [run(reference, feed, where="a calibration sample") for feed in feeds]
        self.folder = source.folder

    def error(self, model: bytes) -> float:
        """Return the squared error of a model's outputs, relative to the signal."""
        session = open_session(model, folder=self.folder)
        found = (run(session, feed, where="a calibration sample") for feed in self.feeds)
        return relative_error(self.wanted, found)


class Work:
    """Writes static versions of one model: statistics are kept while sites go back to float."""

    def __init__(
        self,
        source: Source,
        inputs: Inputs,
        config: QuantizeConfig,
        stages: Stages,
        threads: int,
    ) -> None:
        self.source = source
        self.inputs = inputs
        self.config = config
        self.stages = stages
        self.threads = threads
        self.target = load_target(config.target)
        self.solver = config.solver()
        self.weight_quantizer = config.weight_quantizer()
        self.calibration: Calibration | None = None
        if inputs.statistics is not None:
            self.calibration = Calibration.load(inputs.statistics)
            self.calibration.require_fresh(source, inputs.statistics, inputs.calibration)

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
            sites = self._sites(kept)
            plan = self._plan(sites, kept)
            with self.stages.stage("emit"):
                model = self.source.model.clone()
                emitted = self._emit(model, kept, plan)
                apply_variants(model, variants or {})
                if form == "integer":
                    fuse_integer(model)
                model.metadata_props["ptq"] = self._recipe()
                save_model(model, path)
            with self.stages.stage("check"):
                check_file(path)
                coverage = measure_coverage(path, [s.name for s in sites.sites])
            version = Version(kept, plan, emitted, coverage, _regions(sites), variants or {})
            if not coverage.unfused or self.target.runtime != "onnxruntime":
                break
            why = "onnxruntime does not fuse it into an integer kernel"
            kept = {**kept, **dict.fromkeys(coverage.unfused, why)}
        return version

    def variants(self) -> Mapping[str, Variant]:
        """Return which nodes could be written in another form that may be faster.

        None where kernels saturate: folded or shifted, other codes would be neighbours.
        """
        if any(rule.saturates for rule in self.target.ops.values()):
            return {}
        return possible_variants(self.source.model)

    def _sites(self, keep_float: Mapping[str, str]) -> Sites:
        sites = self._find(self.source.model, keep_float)
        require_sites(sites, self.source, self.target)
        return sites

    def _find(self, model: Model, keep_float: Mapping[str, str]) -> Sites:
        return find_configured_sites(model, self.target, self.config, keep_float)

    def _emit(
        self, model: Model, keep_float: Mapping[str, str], plan: Plan, *, absorb: bool = True
    ) -> Emitted:
        sites = self._find(model, keep_float)
        guard = self.target.runtime == "onnxruntime"
        return emit_qdq(model, sites, plan, self._quantize_weight, absorb=absorb, guard=guard)

    def _quantize_weight(self, w: np.ndarray, axis: int, symmetric: bool) -> QTensor:
        per_channel = self.config.weights == "per-channel"
        return self.weight_quantizer.quantize(
            w,
            QType.parse(self.target.weight),
            axis=axis if per_channel else None,
            symmetric=symmetric,
        )

    def observed(self) -> Calibration:
        """Return the statistics that the plan rests on."""
        assert self.calibration is not None, "planning comes first"
        return self.calibration

    # -- statistics and ranges ----------------------------------------------------------------

    def _plan(self, sites: Sites, keep_float: Mapping[str, str]) -> Plan:
        asked = requests(sites)
        self._observe([r.observed for r in asked if r.observed])
        target = self.target
        symmetric = self.config.symmetric or self.solver.power_of_two or target.activation_symmetric
        choice = RangeChoice(self.solver, QType.parse(self.target.activation), symmetric)
        nodes = plan_nodes(self.source.model, sites, symmetric=self.config.weights_symmetric)
        with self.stages.stage("solve"):
            decisions = decide(asked, self.observed().stats, choice)
        plan = Plan(target=self.target.name, tensors=decisions, nodes=nodes)
        if not self.config.searches_output:
            return plan
        trial = _Trial(self._search_feeds(), self.source)
        fixed = self._search(trial, plan, keep_float)
        decisions = decide(asked, self.observed().stats, choice, fixed=fixed)
        searched = msgspec.structs.replace(plan, tensors=decisions)
        # the search simulates: biases stay as they were rounded for the first scales. What ships is
        # measured as it ships, and the better one kept
        errors = [trial.error(self._emitted_bytes(p, keep_float)) for p in (plan, searched)]
        return searched if errors[1] < errors[0] else plan

    def _observe(self, tensors: Sequence[str]) -> None:
        """Observe what has not been observed yet."""
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
        settings = ObserverSettings(self.config.sample_size, self.config.ema_decay, self.threads)
        with self.stages.stage("observe", data.expected) as step:
            found = observe_tensors(self.source, missing, data, settings, on_feed=step)
        self.calibration = Calibration(found.header, {**known, **found.stats})

    def _search_feeds(self) -> list[Feed]:
        if self.inputs.calibration is None:
            raise ConfigError("--qcode-objective output runs the network; give --calib-data")
        return list(islice(iter(self.inputs.calibration), _SEARCH_SAMPLES))

    def _emitted_bytes(self, plan: Plan, keep_float: Mapping[str, str]) -> bytes:
        model = self.source.model.clone()
        self._emit(model, keep_float, plan)
        return to_bytes(model)

    def _search(self, trial: _Trial, plan: Plan, keep_float: Mapping[str, str]) -> dict[str, Range]:
        """Search power-of-two scales by the error of the network's output."""
        model = self.source.model.clone()
        emitted = self._emit(model, keep_float, plan, absorb=False)
        scaled = with_scales_as_inputs(model, emitted.scales, self.source.folder)
        with self.stages.stage("search", len(plan.tensors)) as step:
            found = search_exponents(
                scaled, plan.tensors, trial.wanted, trial.feeds, on_tensor=step
            )
        return found.ranges

    def _recipe(self) -> str:
        """Return what made this model, as JSON without times or paths."""
        header = self.observed().header
        recipe = {
            "ptq": __version__,
            "config": msgspec.to_builtins(self.config),
            "model_sha256": self.source.digest,
            "data_sha256": header.data_sha256,
            "samples": header.samples,
            "random_data": header.synthetic,
        }
        return msgspec.json.encode(recipe, order="sorted").decode()
