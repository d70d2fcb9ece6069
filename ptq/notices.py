"""What a user should know about a quantization beside its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ptq.evaluate.accuracy import Accuracy
from ptq.evaluate.latency import Latency
from ptq.report import DataInfo
from ptq.report.data_free import data_free_line
from ptq.report.decibels import decibels
from ptq.report.protection import Protection
from ptq.report.refinement import Refinement

if TYPE_CHECKING:
    from ptq.findings import Findings

#: Below this SQNR the user is warned: the error has more than a tenth of the signal's power.
_LEAST_SQNR_DB = 10.0

#: What each step does to so many layers; any other rounds their weights.
_DONE = {
    "seqmse": "choosing the ranges of {} weights by outputs",
    "bias correction": "correcting {} biases",
    "norm tweaking": "tweaking {} layer norms",
    "fine-tuning": "fine-tuning {} weights and the ranges around them",
}

#: So many of the layers that stay in float are named.
_NAMED = 3


def notices_of(found: Findings, evaluation: DataInfo | None) -> Iterator[str]:
    """Yield what speaks against trusting or shipping the result, and what was done unasked.

    Args:
        found: what the stages found.
        evaluation: the data that accuracy was measured on.
    """
    yield from _data(found, evaluation)
    if found.proof is not None and found.proof[1] is None:
        yield (
            f"'{found.plan.target}' is not onnxruntime: accuracy is that of the file as it is "
            "written, simulated in float, and latency was not measured"
        )
    if found.proof is not None:
        yield from _doubts(*found.proof, found.faults)
    if found.placement is not None and found.placement.chosen.startswith("float"):
        prepared = "prepared " if found.placement.chosen != "float" else ""
        yield (
            f"no placement is faster than float here, so that the {prepared}float model was "
            "written; --prefer size writes the smaller integer model all the same"
        )
    if found.coverage.unfused:
        names = ", ".join(found.coverage.unfused)
        yield f"onnxruntime runs in float what was to be integer: {names}"
    # a weight that several nodes share counts once
    forced = len({n.weight for n in found.plan.nodes if n.weight and n.weight_symmetric})
    # weights with levels of their own have no zero points anywhere
    uniform = found.config.weight_quantizer().uniform
    if not found.config.weights_symmetric and uniform and forced:
        yield (
            f"{forced} depthwise convolutions kept symmetric weights: with zero points their "
            "kernel is 50 to 100 times slower"
        )
    if found.protection is not None:
        yield _protected(found.protection)
    # a step that found nothing to change has nothing to say
    yield from (_refined(step) for step in found.refinements if step.layers)
    for step in found.refinements:
        yield from _left(step)
    if found.emitted.widened:
        yield (
            f"{len(found.emitted.widened)} weights got larger scales so that the bias fits "
            "int32 (dead channels; the report names them)"
        )


def _protected(done: Protection) -> str:
    """Return what stays in float for the sake of the outputs, or that it would be too much."""
    change = f"{done.before_db:.1f} dB on calibration data to {done.after_db:.1f}"
    if not done.layers:
        return (
            f"the outputs have {done.before_db:.1f} dB on calibration data, and no few layers in "
            f"float bring that to {done.wanted_db:g}; try another --calib, --smooth or --rounding"
        )
    most = ", ".join(f"{layer.name} ({layer.share:.0%})" for layer in done.layers[:_NAMED])
    layers = f"{len(done.layers)} layers" if len(done.layers) > 1 else "1 layer"
    short = "" if done.reached else f", which is short of {done.wanted_db:g}"
    return (
        f"{layers} with {done.work:.0%} of the work stay in float, which takes the outputs from "
        f"{change}{short}; --protect 0 leaves none. Of the noise, most comes from what these "
        f"round: {most}"
    )


def _refined(done: Refinement) -> str:
    """Return what looking at outputs did to them."""
    before, after = (
        decibels(db, equal="exact", digits=2) for db in (done.before_db, done.after_db)
    )
    what = _DONE.get(done.step, f"rounding {{}} weights by {done.step}").format(done.layers)
    if done.top1 is not None:
        right = "takes right answers on held-out data from {:.2%} to {:.2%}".format(*done.top1)
        return f"{what} {right}" if done.kept else f"{what} {right}: not done"
    change = f"takes the outputs on calibration data from {before}"
    return f"{what} {change} to {after}" if done.kept else f"{what} {change} to {after}: not done"


def _left(done: Refinement) -> Iterator[str]:
    """Yield which layers a step could not change, those of one reason together."""
    for reason in dict.fromkeys(done.left.values()):
        names = [name for name, why in done.left.items() if why == reason]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more} left out by {done.step}: {reason}"


def _data(found: Findings, evaluation: DataInfo | None) -> Iterator[str]:
    if found.data_free is not None:
        yield data_free_line(found.data_free)
    elif found.calibration is not None and found.calibration.header.synthetic:
        yield (
            "calibrated on random numbers: ranges and accuracy mean nothing; give real data "
            "with --calib-data"
        )
    if evaluation is None:
        yield "accuracy and latency were not measured; give --eval-data"
    elif evaluation.role != "evaluation" and found.data_free is None:
        yield "accuracy was measured on the calibration data; give other data with --eval-data"


def _doubts(accuracy: Accuracy, latency: Latency | None, faults: tuple[str, ...]) -> Iterator[str]:
    """Yield what speaks against shipping the result."""
    if accuracy.sqnr_db is not None and accuracy.sqnr_db < _LEAST_SQNR_DB:
        yield (
            f"the outputs are far from the float model's ({accuracy.sqnr_db:.1f} dB): try "
            "another --calib, or keep the operators that matter in float with --exclude"
        )
    if accuracy.sqnr_db is None and any(output.max_abs > 0 for output in accuracy.outputs):
        yield (
            "the float model's outputs are all zero on this data, and the int8 model's are not: "
            "give other data with --eval-data"
        )
    if latency is not None and latency.verdict == "slower":
        yield (
            f"the int8 model is slower than the float one here ({1 / latency.speedup:.2f}x): "
            "conversions around float operators cost more than the integer kernels save"
            + (f"; most at fault: {', '.join(faults)}" if faults else "")
        )
