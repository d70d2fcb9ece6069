"""Gather what the stages found into one report."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptq.calibration import Calibration
from ptq.config import QuantizeConfig
from ptq.evaluate.latency import Latency
from ptq.graph.emit_qdq import Emitted
from ptq.graph.load import model_digest
from ptq.graph.publish import Draft
from ptq.notices import notices_of
from ptq.plan import Plan
from ptq.progress import Stages
from ptq.proof import Evidence, Proof
from ptq.report import DataInfo, Environment, FileInfo, FloatNodes, Report, TensorInfo
from ptq.report.data_free import DataFree
from ptq.report.placement import Placement
from ptq.report.protection import Protection
from ptq.report.ranges import RangeSearch
from ptq.report.refinement import Refinement
from ptq.report.report import Format, Output, Scheme
from ptq.runtime.coverage import Coverage
from ptq.runtime.planned import planned_layers
from ptq.source import Source


@dataclass(frozen=True, slots=True)
class Findings:
    """What the stages of one quantization found.

    Attributes:
        source: the float model.
        config: the settings.
        calibration: the statistics, and what they come from; ``None`` if nothing was observed.
        evidence: what was measured on, if there was any data.
        plan: the decisions.
        emitted: what emitting did.
        coverage: what the runtime made of the result.
        proof: accuracy and latency, if there was any data.
        stages: their wall times.
        notices: what the data readers had to say.
        scheme: where scales come from.
        placement: how it was chosen what becomes integer, if it was.
        faults: the layers that make the result slow, with their times.
        refinements: what looking at outputs changed, step by step.
        data_free: what ranges rest on, where there was no data.
        range_search: how the ranges were chosen, if the output error chose them.
        protection: what stays in float for the sake of the outputs, if they were too far off.
        latencies: one for each number of threads, the one of ``proof`` first; empty for that alone.
    """

    source: Source
    config: QuantizeConfig
    calibration: Calibration | None
    evidence: Evidence | None
    plan: Plan
    emitted: Emitted
    coverage: Coverage
    proof: Proof | None
    stages: Stages
    notices: tuple[str, ...]
    scheme: Scheme = "static"
    placement: Placement | None = None
    latencies: tuple[Latency, ...] = ()
    faults: tuple[str, ...] = ()
    refinements: tuple[Refinement, ...] = ()
    range_search: RangeSearch | None = None
    protection: Protection | None = None
    data_free: DataFree | None = None

    def report(self, draft: Draft, *more: Draft, formats: Sequence[Format] = ("qdq",)) -> Report:
        """Return the report on models that are about to be published.

        Args:
            draft: the model that everything was measured on.
            more: the same model in other formats.
            formats: the format of each.
        """
        accuracy, latency = self.proof or (None, None)
        evaluation = self._evaluation()
        outputs = tuple(_output(d, f) for d, f in zip((draft, *more), formats, strict=True))
        return Report(
            environment=Environment.here(),
            input=_file(self.source.path, self.source.size_bytes, self.source.digest),
            output=_file(outputs[0].path, outputs[0].size_bytes, outputs[0].sha256),
            config=self.config,
            calibration=self._calibration(),
            evaluation=evaluation,
            prepared=self.source.prepared,
            integer_nodes=_integer_nodes(self.plan),
            float_nodes=float_nodes(self.plan),
            ran_integer=dict(self.coverage.integer.most_common()),
            ran_float=dict(self.coverage.floating.most_common()),
            conversions=self.coverage.conversions,
            tensors=self._tensors(),
            weights=self.emitted.weights,
            biases=self.emitted.biases,
            widened=self.emitted.widened,
            coarse_biases=self.emitted.coarse,
            accuracy=accuracy,
            latency=latency,
            stages_s=dict(self.stages.seconds),
            peak_rss_bytes=peak_rss_bytes(),
            notices=(*self.notices, *notices_of(self, evaluation)),
            layers=planned_layers(self.source.model, self.plan.nodes, self.coverage.layers),
            outputs=outputs,
            scheme=self.scheme,
            placement=self.placement,
            range_search=self.range_search,
            latencies=self.latencies or ((latency,) if latency is not None else ()),
            refinements=self.refinements,
            protection=self.protection,
            weight_bits=dict(sorted(self.emitted.widths.items(), reverse=True)),
            weight_coding=self.emitted.coding,
            data_free=self.data_free,
        )

    def _calibration(self) -> DataInfo | None:
        if self.calibration is None:
            return None
        header = self.calibration.header
        return DataInfo(
            source=header.data_source,
            samples=header.samples,
            sha256=header.data_sha256,
            synthetic=header.synthetic,
            role="calibration",
        )

    def _evaluation(self) -> DataInfo | None:
        if self.evidence is None:
            return None
        data = self.evidence.data
        observed, role = None, "evaluation"
        if self.calibration is not None:
            observed = self.calibration.header.data_sha256
        same = observed and not self.evidence.held_out and self.data_free is None
        sha256 = observed if observed and same else data.digest()
        if not self.evidence.held_out:
            role = "calibration (no evaluation data given)"
        elif sha256 == observed:
            role = "calibration (the evaluation data is the same)"
        return DataInfo(
            source=data.source,
            samples=self.evidence.samples,
            sha256=sha256,
            synthetic=data.synthetic,
            role=role,
        )

    def _tensors(self) -> tuple[TensorInfo, ...]:
        rows = []
        observed = self.calibration.stats if self.calibration is not None else {}
        for name, decision in self.plan.tensors.items():
            stats = observed.get(name)
            rows.append(
                TensorInfo(
                    name=name,
                    qtype=decision.qtype,
                    scale=decision.scale,
                    zero_point=decision.zero_point,
                    lo=decision.lo,
                    hi=decision.hi,
                    observed_min=stats.minmax.lo if stats else None,
                    observed_max=stats.minmax.hi if stats else None,
                    clip_share=decision.clip_share,
                    decode=decision.decode,
                    levels=decision.values,
                )
            )
        return tuple(rows)


def _file(path: Path | str, size_bytes: int, sha256: str) -> FileInfo:
    return FileInfo(path=str(path), size_bytes=size_bytes, sha256=sha256)


def _output(draft: Draft, form: Format) -> Output:
    return Output(
        path=str(draft.destination),
        size_bytes=draft.size_bytes,
        sha256=model_digest(draft.path),
        format=form,
    )


def _integer_nodes(plan: Plan) -> dict[str, int]:
    return dict(Counter(n.op_type for n in plan.nodes if n.integer).most_common())


def float_nodes(plan: Plan) -> tuple[FloatNodes, ...]:
    """Return the nodes left in float, by operator and reason, the most common first."""
    names: dict[tuple[str, str], list[str]] = {}
    for node in plan.nodes:
        if not node.integer:
            names.setdefault((node.op_type, node.why), []).append(node.name)
    ranked = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(FloatNodes(op_type=op, why=why, names=tuple(ns)) for (op, why), ns in ranked)


def peak_rss_bytes() -> int:
    """Return the largest resident size of this process until now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
