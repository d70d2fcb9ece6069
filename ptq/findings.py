"""Gather what the stages found into one report."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ptq.calibration import Calibration
from ptq.config import QuantizeConfig
from ptq.evaluate.accuracy import Accuracy
from ptq.evaluate.latency import Latency
from ptq.graph.emit_qdq import Emitted
from ptq.graph.load import model_digest
from ptq.graph.publish import Draft
from ptq.plan import Plan
from ptq.progress import Stages
from ptq.proof import Evidence
from ptq.report import DataInfo, Environment, FileInfo, FloatNodes, Report, TensorInfo
from ptq.runtime.coverage import Coverage
from ptq.source import Source

#: Below this SQNR the user is warned: the error has more than a tenth of the signal's power.
_LEAST_SQNR_DB = 10.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What the stages of one quantization found.

    Attributes:
        source: the float model.
        config: the settings.
        calibration: the statistics, and what they come from.
        evidence: what was measured on, if there was any data.
        plan: the decisions.
        emitted: what emitting did.
        coverage: what the runtime made of the result.
        proof: accuracy and latency, if there was any data.
        stages: their wall times.
        notices: what the data readers had to say.
    """

    source: Source
    config: QuantizeConfig
    calibration: Calibration
    evidence: Evidence | None
    plan: Plan
    emitted: Emitted
    coverage: Coverage
    proof: tuple[Accuracy, Latency] | None
    stages: Stages
    notices: tuple[str, ...]

    def report(self, draft: Draft) -> Report:
        """Return the report on a model that is about to be published."""
        accuracy, latency = self.proof or (None, None)
        evaluation = self._evaluation()
        return Report(
            environment=Environment.here(),
            input=_file(self.source.path, self.source.size_bytes, self.source.digest),
            output=_file(draft.destination, draft.size_bytes, model_digest(draft.path)),
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
            notices=(*self.notices, *self._notices(evaluation)),
        )

    def _calibration(self) -> DataInfo:
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
        observed, role = self.calibration.header.data_sha256, "evaluation"
        sha256 = data.digest() if self.evidence.held_out else observed
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
        for name, decision in self.plan.tensors.items():
            stats = self.calibration.stats.get(name)
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
                )
            )
        return tuple(rows)

    def _notices(self, evaluation: DataInfo | None) -> list[str]:
        notices = []
        if self.calibration.header.synthetic:
            notices.append(
                "calibrated on random numbers: ranges and accuracy mean nothing; give real data "
                "with --calib-data"
            )
        if evaluation is None:
            notices.append("accuracy and latency were not measured; give --eval-data")
        elif evaluation.role != "evaluation":
            notices.append(
                "accuracy was measured on the calibration data; give other data with --eval-data"
            )
        if self.proof is not None:
            notices += _doubts(*self.proof)
        if self.coverage.unfused:
            names = ", ".join(self.coverage.unfused)
            notices.append(f"onnxruntime runs in float what was to be integer: {names}")
        # a weight that several nodes share counts once
        forced = len({n.weight for n in self.plan.nodes if n.weight and n.weight_symmetric})
        if not self.config.weights_symmetric and forced:
            notices.append(
                f"{forced} depthwise convolutions kept symmetric weights: with zero points their "
                "kernel is 50 to 100 times slower"
            )
        if self.emitted.widened:
            notices.append(
                f"{len(self.emitted.widened)} weights got larger scales so that the bias fits "
                "int32 (dead channels; the report names them)"
            )
        return notices


def _doubts(accuracy: Accuracy, latency: Latency) -> list[str]:
    """Return what speaks against shipping the result."""
    doubts = []
    if accuracy.sqnr_db is not None and accuracy.sqnr_db < _LEAST_SQNR_DB:
        doubts.append(
            f"the outputs are far from the float model's ({accuracy.sqnr_db:.1f} dB): try "
            "another --calib, or keep the operators that matter in float with --exclude"
        )
    if accuracy.sqnr_db is None and any(output.max_abs > 0 for output in accuracy.outputs):
        doubts.append(
            "the float model's outputs are all zero on this data, and the int8 model's are not: "
            "give other data with --eval-data"
        )
    if latency.verdict == "slower":
        doubts.append(
            f"the int8 model is slower than the float one here ({1 / latency.speedup:.2f}x): "
            "conversions around float operators cost more than the integer kernels save"
        )
    return doubts


def _file(path: Path, size_bytes: int, sha256: str) -> FileInfo:
    return FileInfo(path=str(path), size_bytes=size_bytes, sha256=sha256)


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
