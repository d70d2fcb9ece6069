"""What the benchmarks measure, each job a process: python jobs.py NAME ARGUMENTS RESULT.

The jobs of a user (plain, ptq, ort) return ``stages_s``, wall time by stage, ``work_s``, those
stages that `run.py` compares, ``cpu_s`` of the process, imports and all, and ``peak_rss_mb``.
Nothing heavy is imported up here: imports are a stage too, in the wall time of the process that
`common.run_job` measures, not in ``work_s``.
"""

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path


def serve(*jobs) -> None:
    """Run the one of these functions that the command line names, and write what it returns."""
    name, arguments, result = sys.argv[1:]
    given = json.loads(arguments)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-given.pop("cores") :])
    found = {job.__name__: job for job in jobs}[name](**given)
    Path(result).write_text(json.dumps(found, default=float))


class Clock:
    """Wall time by stage, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str):
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def result(self, *work: str) -> dict:
        work_s = sum(self.seconds[stage] for stage in work)
        return {
            "work_s": work_s,
            "stages_s": self.seconds,
            "cpu_s": time.process_time(),
            "peak_rss_mb": peak_rss_mb(),
        }


def peak_rss_mb() -> float:
    """Return the largest resident size of this process so far.

    VmHWM, because ru_maxrss is inherited: it starts at the size of the process that forked.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status; the benchmarks need Linux")


def read_feeds(folder: str):
    """Yield the feeds of a folder of .npz files."""
    import numpy as np

    for file in sorted(Path(folder).iterdir()):
        with np.load(file) as arrays:
            yield dict(arrays)


def session_options(threads: int):
    """Return session options; idle threads do not spin, as in ptq: they would slow what runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


# -- the work of a user ---------------------------------------------------------------------------


def plain(model: str, feeds: str, threads: int) -> dict:
    """Inference alone: the least that any calibration must do."""
    clock = Clock()
    with clock.stage("import"):
        from onnxruntime import InferenceSession
    with clock.stage("session"):
        options = session_options(threads)
        session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with clock.stage("inference"):
        for feed in read_feeds(feeds):
            session.run(None, feed)
    return clock.result("session", "inference")


def ptq(  # noqa: PLR0913  arguments come by name
    model: str,
    feeds: str,
    output: str,
    method: str,
    threads: int,
    settings: dict[str, object] | None = None,
    preset: str = "balanced",
) -> dict:
    """`ptq quantize` up to its proof: the work ends when the model is written and checked.

    What comes then, measuring accuracy and latency, is no part of the others' work. It is
    returned as ``proof_s``, which `common.run_job` takes off the wall time.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        method: the range method.
        threads: to observe with.
        settings: other fields of `ptq.QuantizeConfig`. By default all becomes integer that can,
            as with the others, and nothing is measured to choose.
        preset: named defaults, over which the settings go.
    """
    clock = Clock()
    with clock.stage("import"):
        import msgspec
        import onnxruntime  # noqa: F401  else its import would count as the work that needs it

        from ptq import QuantizeConfig, quantize
        from ptq.options import RunOptions
        from ptq.presets import PRESETS
    checked = {}
    named = {k.replace("-", "_"): value for k, value in PRESETS[preset].settings.items()}
    given = {"calib": method, "place": ["all"], "allow_larger": True, **named, **(settings or {})}

    def on_progress(progress) -> None:
        if progress.stage == "evaluate" and not checked:
            cpu_s = time.process_time()
            checked.update(at=time.perf_counter(), cpu_s=cpu_s, peak_rss_mb=peak_rss_mb())

    began = time.perf_counter()
    result = quantize(
        model,
        feeds,
        msgspec.convert(given, QuantizeConfig),
        options=RunOptions(
            output=Path(output), force=True, threads=threads, on_progress=on_progress
        ),
    )
    placement = result.report.placement
    return {
        "placed": placement.chosen if placement is not None else None,
        "notices": result.report.notices,
        "work_s": checked["at"] - began,
        "stages_s": {**clock.seconds, **result.report.stages_s},
        "proof_s": time.perf_counter() - checked["at"],
        "cpu_s": checked["cpu_s"],
        "peak_rss_mb": checked["peak_rss_mb"],
        "peak_rss_with_proof_mb": peak_rss_mb(),
    }


def ort(  # noqa: PLR0913  arguments come by name
    model: str,
    feeds: str,
    output: str,
    method: str,
    threads: int,
    at_a_time: int | None = None,
    *,
    reduce_range: bool = False,
) -> dict:
    """`onnxruntime.quantization` as a careful user calls it: prepare, calibrate, quantize_static.

    quantize_static takes neither a number of bins nor of threads. Both are given to the
    calibrator that it would make, and what that finds reaches quantize_static as its calibration
    cache. With the default number of bins the result is the same, to the bit of every tensor.

    Args:
        model: the float model.
        feeds: a folder of .npz files.
        output: where to write.
        method: minmax, entropy (2048 bins) or percentile.
        threads: of the calibrator's session.
        at_a_time: observe only so many feeds before they are summarized, which is how
            quantize_static saves memory when told to (CalibStridedMinMax); all by default.
        reduce_range: weights of 7 bits, for CPUs whose kernels saturate.
    """
    clock = Clock()
    with clock.stage("import"):
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationMethod, save_tensors_data
    folder = Path(output).parent
    ranges = folder / f"{Path(output).stem}.ranges.json"
    with clock.stage("prepare"):
        prepared, notes = prepare(model, folder / f"{Path(output).stem}.prepared.onnx")
    with clock.stage("calibrate"):
        augmented = folder / f"{Path(output).stem}.augmented.onnx"
        calibrator = _calibrator(method, prepared, augmented, threads)
        for reader in readers(feeds, at_a_time):
            calibrator.collect_data(reader)
        save_tensors_data(calibrator.compute_data(), ranges)
        del calibrator
    with clock.stage("quantize"):
        quantize_static(
            str(prepared),
            output,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[_METHODS[method]],
            calibration_cache_path=ranges,
            reduce_range=reduce_range,
        )
    return {**clock.result("calibrate", "quantize"), "notes": notes}


def ort_dynamic(model: str, output: str, threads: int, *, reduce_range: bool = False) -> dict:
    """`quantize_dynamic` as a careful user calls it: prepare, then all that it can but Conv.

    Of Conv it would make ConvInteger, which is several times slower than float.

    Args:
        model: the float model.
        output: where to write.
        threads: not used.
        reduce_range: weights of 7 bits, for CPUs whose kernels saturate.
    """
    del threads
    clock = Clock()
    with clock.stage("import"):
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.registry import IntegerOpsRegistry
    with clock.stage("prepare"):
        prepared, notes = prepare(model, Path(output).with_suffix(".prepared.onnx"))
    with clock.stage("quantize"):
        quantize_dynamic(
            str(prepared),
            output,
            op_types_to_quantize=[op for op in IntegerOpsRegistry if op != "Conv"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"EnableSubgraph": True},
        )
    return {**clock.result("quantize"), "notes": notes}


def prepared(model: str, output: str, threads: int) -> dict:
    """Do nothing but prepare a model for a tool that has no preparation of its own."""
    del threads
    path, notes = prepare(model, Path(output))
    return {"path": str(path), "notes": notes}


_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def prepare(model: str, prepared: Path, least_opset: int = 13) -> tuple[Path, list[str]]:
    """Do what quantize_static's documentation recommends; per-axis weights need opset 13."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, notes = Path(model), []
    proto = onnx.load(source)
    opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    if opset < least_opset:
        raised = max(17, least_opset)
        source = prepared.with_suffix(f".opset{raised}.onnx")
        onnx.save(version_converter.convert_version(proto, raised), source)
        notes.append(f"opset {opset} to {raised}")
    for skip_symbolic in (False, True):
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=skip_symbolic)
        except Exception as error:  # noqa: BLE001  it raises plain Exception
            which = "without symbolic shapes " if skip_symbolic else ""
            notes.append(f"quant_pre_process {which}failed: {type(error).__name__}: {error}"[:120])
        else:
            return prepared, notes
    return source, notes


def _calibrator(method: str, model: Path, augmented: Path, threads: int):
    """Make a calibrator as `create_calibrator` does, but with this number of threads."""
    import onnxruntime
    from onnxruntime.quantization import calibrate
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    kind, options = {
        "minmax": (calibrate.MinMaxCalibrater, {}),
        "entropy": (calibrate.EntropyCalibrater, {"num_bins": 2048, "num_quantized_bins": 128}),
        "percentile": (calibrate.PercentileCalibrater, {"num_bins": 2048, "symmetric": True}),
    }[method]

    class Calibrator(kind):
        def create_inference_session(self) -> None:
            options = session_options(threads)
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            self.infer_session = onnxruntime.InferenceSession(
                self.augmented_model_path, options, providers=self.execution_providers
            )

    ops = list({*QLinearOpsRegistry, *QDQRegistry})  # what quantize_static calibrates by default
    made = Calibrator(model, ops, augmented_model_path=str(augmented), **options)
    made.augment_graph()
    made.create_inference_session()
    return made


def readers(folder: str, at_a_time: int | None):
    """Yield calibration data readers that give all feeds between them."""
    from itertools import chain, islice

    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self, feeds) -> None:
            self.feeds = iter(feeds)

        def get_next(self):
            return next(self.feeds, None)

    feeds = read_feeds(folder)
    for first in feeds:
        rest = feeds if at_a_time is None else islice(feeds, at_a_time - 1)
        yield Reader(chain([first], rest))


# -- what came out of it --------------------------------------------------------------------------


def accuracy(reference: str, candidates: dict[str, str], feeds: str, threads: int) -> dict:
    """Compare models with the float model, by `ptq.evaluate`: SQNR, None if outputs are equal."""
    from ptq.errors import PtqError
    from ptq.evaluate.accuracy import compare
    from ptq.runtime.session import open_session

    found = {}
    for name, path in candidates.items():
        try:
            sessions = [open_session(Path(p), threads=threads) for p in (reference, path)]
            result = compare(*sessions, read_feeds(feeds))
        except PtqError as error:
            found[name] = {"error": str(error)}
        else:
            each = [o.sqnr_db for o in result.outputs if o.sqnr_db is not None]
            worst_db = min(each, default=None)
            found[name] = {"sqnr_db": result.sqnr_db, "worst_db": worst_db}
        found[name]["size_bytes"] = Path(path).stat().st_size
    return {"models": found}


def latency(
    reference: str, candidates: dict[str, str], feeds: str, threads: int, seconds: float = 4.0
) -> dict:
    """Time models in turn on one feed, by `ptq.evaluate`; the control is the float model again."""
    from functools import partial

    from ptq.errors import PtqError
    from ptq.evaluate.latency import measure_latencies
    from ptq.runtime.session import open_session, run

    feed = next(read_feeds(feeds))
    openers, failed = {}, {}
    for name, path in {"float": reference, **candidates}.items():
        opener = partial(open_session, Path(path), threads=threads)
        try:
            run(opener(), feed)  # a model that loads may still fail when it runs
        except PtqError as error:
            if name == "float":
                raise
            failed[name] = str(error)
        else:
            openers[name] = opener
    found = measure_latencies([*openers.values()], feed, threads=threads, seconds=seconds)
    speedups = dict(zip([*openers, "control"], [*found.speedups, found.control], strict=True))
    timings = dict(zip(openers, found.timings, strict=True))
    # the control takes turns with the others, but only its ratio is told
    control_ms = timings["float"].median_ms / found.control.median
    return {
        "rounds": found.rounds,
        "median_ms": {**{n: t.median_ms for n, t in timings.items()}, "control": control_ms},
        "p10_ms": {name: timing.p10_ms for name, timing in timings.items()},
        "speedup": {name: speedup.median for name, speedup in speedups.items()},
        "spread": {name: speedup.spread for name, speedup in speedups.items()},
        "failed": failed,
    }


def host(threads: int) -> dict:
    """Return which target describes this machine: what its integer kernels are like."""
    from ptq.runtime.host import host_target

    del threads
    return {"target": host_target()}


def metric(model: str, path: str, threads: int) -> dict:
    """Return the zoo's own figure of a model: ``primary``, higher is better."""
    from common import load_zoo

    found = load_zoo()[model].metric(path, threads=threads)
    return {key: found[key] for key in ("primary", "primary_name", "n")}


if __name__ == "__main__":
    serve(plain, ptq, ort, ort_dynamic, prepared, accuracy, latency, host, metric)
