"""One quantization from its inputs to a report on drafts: write, place, prove, guard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from ptq import __version__
from ptq.benching import profile_models
from ptq.comparing import CompareOptions, compare_feeds
from ptq.config import FileFormat, QuantizeConfig
from ptq.data.feeds import Feed
from ptq.details import histograms_of
from ptq.errors import ConfigError, VerificationError
from ptq.findings import Findings
from ptq.graph.emit_qdq import Emitted
from ptq.graph.load import model_files
from ptq.graph.publish import Draft
from ptq.graph.save import save_model
from ptq.graph.weight_ranges import weight_ranges
from ptq.inputs import Inputs
from ptq.options import RunOptions
from ptq.place.memory import Memory
from ptq.placing import FLOAT, FLOATS, PREPARED, Placer
from ptq.plan import Plan
from ptq.progress import Stages
from ptq.proof import Measuring, Proof, prove, reference_of
from ptq.protecting import protect, reasons
from ptq.report import Report
from ptq.report.comparison import LayerError
from ptq.report.placement import ALL, Mode, Placement
from ptq.report.profile import Profile
from ptq.report.protection import Protection
from ptq.runtime.coverage import measure_coverage
from ptq.runtime.host import host_key, host_target
from ptq.schemes import SchemeWriter
from ptq.source import Source
from ptq.speed import SpeedGuard, layers_at_fault
from ptq.targets import load_target
from ptq.trial import Trial
from ptq.version import Version, Writer
from ptq.work import Work

#: What keeps every node in float where no placement is faster.
_SLOWER = "no placement with it is faster than float here"

#: Samples on which it is measured what keeps the outputs from being near.
_PROTECTED_ON = 8

#: Samples on which a page compares layers: errors of single layers vary little between samples.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Job:
    """What a quantization works from.

    Attributes:
        source: the float model.
        inputs: the data.
        config: the settings.
        stages: told of what takes time.
        options: how the run goes.
        unchanged: the float model without rescaled channels; ``None`` if it is the source.
        notices: what a user should know of how the settings came about.
    """

    source: Source
    inputs: Inputs
    config: QuantizeConfig
    stages: Stages
    options: RunOptions
    unchanged: Source | None = None
    notices: tuple[str, ...] = ()


class Run:
    """One quantization under way.

    Attributes:
        plan: the decisions, once `write` has made them.
        reference: the float file that was measured against, likewise.
        protection: what stays in float for the sake of the outputs, likewise.
    """

    def __init__(self, job: Job) -> None:
        source, inputs, config = job.source, job.inputs, job.config
        self.source, self.inputs, self.config = source, inputs, config
        self.unchanged, self.said = job.unchanged or source, job.notices
        self.stages, self.options = job.stages, job.options
        self.evidence = inputs.evidence()
        self.pinned = job.options.placement
        by_cost = config.places_by_cost and runs_here(config) and self.pinned is None
        self.measures = self.evidence is not None and by_cost
        self.guard = SpeedGuard.of(job.options, measured=self.measures)
        self.static: Work | None = None
        self.writer: Writer
        assert config.scheme != "auto", "a run is of one scheme"
        self.scheme = config.scheme
        if self.scheme == "static":
            self.writer = self.static = Work(
                source, inputs, config, job.stages, job.options.threads, job.options.trained
            )
        else:
            if config.refines and inputs.calibration is None:
                raise ConfigError(f"{config.refinements[0]} runs the network; give --calib-data")
            self.writer = SchemeWriter(
                source, inputs, config, job.stages, convolutions=self.measures
            )
        self.prepared_is_faster = False
        self.reference = job.source.path
        self.plan = Plan(target=config.target, tensors={}, nodes=())
        self.protection: Protection | None = None

    def write(self, drafts: Sequence[Draft]) -> Report:
        """Write the drafts, prove the first, and return the report on all.

        Args:
            drafts: one for each format.

        Raises:
            VerificationError: the result is larger, does not load or gives NaN.
            ThresholdError: it is slower than the user puts up with.
        """
        main = drafts[0]
        scratch = main.path.with_name(f"{main.path.name}.scratch")
        scratch.mkdir()
        self.reference = reference = reference_of(self.source, scratch)
        placer = self._placer()
        version, placement = self._place(placer, reference, main)
        if not _is_float(placement):
            self._require_smaller(main)
            version = self._refined(main, self.config.formats[0], version)
        proof = self._prove(reference, main)
        faults: tuple[str, ...] = ()
        latency = proof[1] if proof is not None else None
        if placer is not None and latency is not None and not _is_float(placement):
            if self.guard.doubts(latency):
                faults = layers_at_fault(placer.costs(main.path, version.regions))
            if self.guard.keeps_float(latency, faults):
                version, placement = self._keep_float(main, version.plan, placement)
                proof = self._prove(reference, main)
        for draft, other in zip(drafts[1:], self.config.formats[1:], strict=True):
            if _is_float(placement):
                self._keep_float(draft, version.plan, placement)
            else:
                again = self.writer.write(draft.path, other, version.keep_float, version.variants)
                if self.static is None:  # in other blocks, if need be
                    self._refined(draft, other, again)
        self.plan = version.plan
        findings = Findings(
            source=self.source,
            config=self.config,
            calibration=self.static.calibration if self.static is not None else None,
            evidence=self.evidence,
            plan=version.plan,
            emitted=version.emitted,
            coverage=version.coverage,
            proof=proof,
            stages=self.stages,
            notices=(
                *self.inputs.notices(),
                *self._changes(),
                *self.said,
                *(self.static.notices(version.plan) if self.static else ()),
            ),
            data_free=self.static.data_free() if self.static is not None else None,
            range_search=self.static.range_search if self.static is not None else None,
            scheme=self.scheme,
            placement=placement,
            faults=faults,
            refinements=() if _is_float(placement) else version.refinements,
            protection=None if _is_float(placement) else self.protection,
        )
        return findings.report(*drafts, formats=self.config.formats)

    def _refined(self, draft: Draft, form: FileFormat, version: Version) -> Version:
        """Return a version as looking at the outputs of layers makes it, where that is wanted."""
        if not self.config.refines:
            return version
        if self.static is not None:
            return self.static.refine(draft.path, form, version)
        assert isinstance(self.writer, SchemeWriter)
        return self.writer.refine(draft.path, form, version, threads=self.options.threads)

    def _changes(self) -> tuple[str, ...]:
        """Return what was done to the float model on request, beyond preparing it."""
        return self.source.prepared[len(self.unchanged.prepared) :]

    def detailed(self, report: Report, main: Draft) -> Report:
        """Return the report with errors, times and values, layer by layer.

        Args:
            report: what `write` returned.
            main: the draft that it measured.
        """
        calibration = self.static.calibration if self.static is not None else None
        weights = dict.fromkeys(n.weight for n in self.plan.nodes if n.weight is not None)
        found = weight_ranges(
            self.source.model, main.path, weights, bits=self.config.bits, widths=self._widths()
        )
        changes: dict[str, Any] = {"histograms": histograms_of(self.plan, calibration, found)}
        placement = report.placement
        if self.evidence is not None and not (placement and placement.chosen == FLOAT):
            changes["errors"] = self._errors(main)
            if report.latency is not None:
                changes["profile"] = self._profile(main)
        changes["stages_s"] = dict(self.stages.seconds)
        return msgspec.structs.replace(report, **changes)

    def _widths(self) -> dict[str, int]:
        """Return the bits of the weights of the static scheme, by name."""
        if self.static is None:
            return {}
        width = self.static.overrides.weight
        return {n.weight: width(n.name).bits for n in self.plan.nodes if n.weight is not None}

    def _errors(self, main: Draft) -> tuple[LayerError, ...]:
        """Compare both models layer by layer, on a few of the samples."""
        assert self.evidence is not None
        evidence = self.evidence

        def feeds() -> Iterator[Feed]:
            return islice(evidence.feeds(), _COMPARED)

        options = CompareOptions(threads=self.options.threads)
        count = min(evidence.samples, _COMPARED)
        found = compare_feeds(
            self.source, main.path, feeds, options, expected=count, stages=self.stages
        )
        return found.layers

    def _profile(self, main: Draft) -> Profile:
        """Time both models layer by layer."""
        assert self.evidence is not None
        paths, feed = (self.reference, main.path), next(self.evidence.feeds())
        with self.stages.stage("profile"):
            return profile_models(paths, feed, 1, self.options.seconds)

    def _place(
        self, placer: Placer | None, reference: Path, main: Draft
    ) -> tuple[Version, Placement]:
        """Write the main draft, with in integers what is asked for or what is measured to pay."""
        form = self.config.formats[0]
        if self.pinned is not None:
            pinned = Placement(mode="pinned", candidates=(), chosen=ALL, seconds=0.0)
            return self.writer.write_pinned(main.path, form, self.pinned), pinned
        version, placement = (
            self._protected(main, self.writer.write(main.path, form)),
            self._asked(),
        )
        if placer is None or not runs_here(self.config):
            return version, placement
        if isinstance(self.writer, SchemeWriter) and self.scheme == "weight-only":
            memory, seconds = self._memory(placer.feed), self.options.seconds
            return self.writer.settle(main.path, form, placer.feed, memory, seconds=seconds)
        if not self.measures or not version.regions:
            return version, placement
        memory = self._memory(placer.feed)
        choice, placement = placer.choose(reference, main.path, version, memory)
        self.prepared_is_faster = choice.prepared_is_faster
        if choice.float_is_faster and self.guard.gives_way:
            return self._keep_float(main, version.plan, placement)
        if choice.chosen != ALL or choice.variants:
            version = self.writer.write(main.path, form, choice.keep_float, choice.variants)
        return version, placement

    def _protected(self, main: Draft, version: Version) -> Version:
        """Write the main draft again, with those layers in float that do most to the outputs."""
        wanted_db, data = self.config.protected_db, self.inputs.calibration
        if not wanted_db or self.static is None:
            return version
        if data is None or data.synthetic:
            # of statistics or random numbers nothing can be learnt about the outputs
            if self.config.protect is not None:
                raise ConfigError("--protect runs the network on real inputs; give --calib-data")
            return version
        feeds = list(islice(iter(data), _PROTECTED_ON))
        simulated = load_target(self.config.target).runtime != "onnxruntime"
        error = Trial(feeds, self.source).error_of_file(main.path, simulated=simulated)
        if error <= 10 ** (-wanted_db / 10):
            return version
        found = self.protection = protect(self.static, version, feeds, wanted_db)
        if found is None or not found.layers:
            return version
        kept = {**version.keep_float, **reasons(found)}
        return self.static.write(main.path, self.config.formats[0], kept)

    def _placer(self) -> Placer | None:
        """Return what can measure placements, if there is anything to run."""
        if self.evidence is None:
            return None
        feed = next(self.evidence.feeds())
        form, seconds = self.config.formats[0], self.options.seconds
        return Placer(self.source, self.writer, form, feed, self.stages, seconds=seconds)

    def _asked(self) -> Placement:
        """Return the placement that is not measured."""
        mode: Mode = "patterns" if self.config.placed_globs else "all"
        return Placement(mode=mode, candidates=(), chosen=ALL, seconds=0.0)

    def _memory(self, feed: Feed) -> Memory:
        shapes = {name: array.shape for name, array in feed.items()}
        settings = msgspec.to_builtins(self.config)
        calibration = self.static.observed().header.data_sha256 if self.static else ""
        return Memory.of(
            host_key(), [__version__, self.source.digest, settings, calibration, shapes]
        )

    def _keep_float(
        self, draft: Draft, plan: Plan, placement: Placement
    ) -> tuple[Version, Placement]:
        """Write a float model in place of the integer one: the user's, or as it was prepared."""
        for file in draft.path.parent.glob(f"{draft.path.name}*"):
            if file.is_file():
                file.unlink()
        # of two files, the data would keep its name, which may be taken beside the result
        if self.prepared_is_faster or len(model_files(self.source.path)) > 1:
            save_model(self.unchanged.model, draft.path)
        else:
            shutil.copyfile(self.source.path, draft.path)
        nodes = tuple(
            msgspec.structs.replace(n, integer=False, why=_SLOWER, weight=None) if n.integer else n
            for n in plan.nodes
        )
        kept = Plan(target=plan.target, tensors={}, nodes=nodes)
        emitted = Emitted(weights=0, biases=0, widened=(), coarse=(), scales={})
        version = Version({}, kept, emitted, measure_coverage(draft.path), ())
        chosen = PREPARED if self.prepared_is_faster else FLOAT
        return version, msgspec.structs.replace(placement, chosen=chosen)

    def _prove(self, reference: Path, draft: Draft) -> Proof | None:
        if self.evidence is None:
            return None
        how = Measuring(
            threads=self.options.threads,
            seconds=self.options.seconds,
            simulated=load_target(self.config.target).runtime != "onnxruntime",
        )
        return prove(reference, draft.path, self.evidence, self.stages, how)

    def _require_smaller(self, draft: Draft) -> None:
        if draft.size_bytes < self.source.size_bytes or self.config.allow_larger:
            return
        raise VerificationError(
            f"the quantized model has {draft.size_bytes} bytes, the float model "
            f"{self.source.size_bytes}: scales and zero points outweigh such small weights; keep "
            "the float model, or give --allow-larger"
        )


def runs_here(config: QuantizeConfig) -> bool:
    """Whether the result is meant for this machine, so that what is measured here counts."""
    return config.target == host_target()


def _is_float(placement: Placement) -> bool:
    return placement.chosen in FLOATS
