"""Compare ways to have fewer than 8 bits a weight on int8 kernels: SQNR, size and speed.

    python benchmarks/low_bits.py FOLDER ... [--samples 32] [--eval 64] [--only NAME ...]
    python benchmarks/low_bits.py FOLDER ... --storage

Every FOLDER holds ``model.onnx`` and two folders of .npz files, ``calib`` and ``eval``. Everything
that the target runs is in integers (``--place all``). Figures are of data that is not calibrated
on. The table goes to stdout as markdown, all figures to results/low_bits.json, model by model.

With ``--storage``, weights of 8 to 1 bits are compared with the same codes in int8: bits a weight
in the file, nodes and tables included, and how much longer loading and running take. Both files are
loaded and run in turn, with one thread, and must put out the same.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from common import NOT_THERE, sqnr_cell, table, workplace, write_results

import ptq
from ptq.data.dataset import evenly_spaced
from ptq.errors import PtqError
from ptq.graph.quantized import read_quantized
from ptq.graph.save import save_model
from ptq.graph.widen import widened
from ptq.options import RunOptions, WidthBudget
from ptq.runtime.session import open_session

#: How often a file is loaded in turn with another one, and how often it is run each time.
_TURNS, _RUNS = 15, 5

_FOUR = {"bits": 4, "weights_symmetric": False}
_FULL = {"rounding": "gptq", "bias_correct": True}
_MIXED = {"weights_symmetric": False, **_FULL}

#: Settings, and the mean width where layers have widths of their own.
WAYS = {
    "W8A8, to nearest, symmetric": ({}, None),
    "W4A8, to nearest, symmetric, minmax": ({"bits": 4, "weight_method": "minmax"}, None),
    "W4A8, to nearest, asymmetric, minmax": ({**_FOUR, "weight_method": "minmax"}, None),
    "W4A8, to nearest, asymmetric, mse": (_FOUR, None),
    "W4A8, mse, bias-correct": ({**_FOUR, "bias_correct": True}, None),
    "W4A8, gptq": ({**_FOUR, "rounding": "gptq"}, None),
    "W4A8, gptq, bias-correct": ({**_FOUR, **_FULL}, None),
    "mixed, 4.5 bits, gptq, bias-correct": (_MIXED, 4.5),
    "mixed, 5 bits, gptq, bias-correct": (_MIXED, 5.0),
    "mixed, 6 bits, gptq, bias-correct": (_MIXED, 6.0),
}


def main() -> None:
    args = _arguments()
    if args.storage:
        print_storage(args)
        return
    found: dict[str, dict] = {}
    for folder in args.folders:
        found[folder.name] = {}
        for name in args.only or WAYS:
            print(folder.name, name, file=sys.stderr)
            found[folder.name][name] = measure(folder, *WAYS[name], args)
            settings = {"samples": args.samples, "eval": args.eval}
            write_results(args.name, settings, {"models": found})
    names = list(found)
    rows = [(way, *(_cell(found[n].get(way)) for n in names)) for way in args.only or WAYS]
    print("dB on held-out data, size in MB, speed beside float\n")
    print(table(("", *names), rows))


def measure(folder: Path, settings: dict, mean: float | None, args: argparse.Namespace) -> dict:
    """Quantize one model in one way; what cannot be done says why."""
    with workplace() as place:
        held_out = place / "eval"
        held_out.mkdir()
        files = sorted((folder / "eval").iterdir())
        for i in evenly_spaced(len(files), args.eval):
            (held_out / files[i].name).symlink_to(files[i].resolve())
        options = RunOptions(
            output=place / "q.onnx",
            samples=args.samples,
            evaluation=str(held_out),
            seconds=args.seconds,
            widths=None if mean is None else WidthBudget(mean_bits=mean),
        )
        config = ptq.QuantizeConfig(place=("all",), allow_larger=True, **settings)
        try:
            report = ptq.quantize(
                folder / "model.onnx", str(folder / "calib"), config, options=options
            ).report
        except PtqError as error:
            return {"error": str(error)}
    assert report.accuracy and report.latency and report.output
    return {
        "sqnr_db": report.accuracy.sqnr_db,
        "size_mb": report.output.size_bytes / 1e6,
        "speedup": report.latency.speedup,
        "seconds": sum(report.stages_s.values()),
        "weight_bits": report.weight_bits,
    }


def print_storage(args: argparse.Namespace) -> None:
    """Print what weights of each width take in the file, and at load; write all figures."""
    found: dict[str, dict] = {folder.name: {} for folder in args.folders}
    for folder in args.folders:
        for bits in range(8, 0, -1):
            print(folder.name, bits, file=sys.stderr)
            found[folder.name][bits] = measure_storage(folder, bits, args)
            write_results(f"{args.name}_storage", {"samples": args.samples}, {"models": found})
    rows = [
        (str(bits), *(_storage_cell(found[name][bits]) for name in found))
        for bits in range(8, 0, -1)
    ]
    print("bits a weight in the file, its size in MB, time to load and to run beside int8\n")
    print(table(("bits", *found), rows))


def measure_storage(folder: Path, bits: int, args: argparse.Namespace) -> dict:
    """Quantize all layers to a width, and hold the file against one with the same codes in int8."""
    with workplace() as place:
        narrow, wide = place / "narrow.onnx", place / "wide.onnx"
        method = {} if bits > 1 else {"weight_method": "bwn"}
        config = ptq.QuantizeConfig(
            bits=bits, edge_bits=max(bits, 2), weights_symmetric=False, place=("all",), **method
        )
        options = RunOptions(output=narrow, samples=args.samples, seconds=0.01)
        calibration = str(folder / "calib")
        report = ptq.quantize(folder / "model.onnx", calibration, config, options=options).report
        model = widened(read_quantized(narrow))
        # what a file says of the types of constants, their tensors say too
        for value in model.graph.initializers.values():
            value.shape = value.type = None
        save_model(model, wide)
        weights = sum(report.weight_bits.values())
        spared = wide.stat().st_size - narrow.stat().st_size
        with np.load(sorted((folder / "eval").iterdir())[0]) as arrays:
            feed = dict(arrays)
        return {
            "mean_bits": sum(b * n for b, n in report.weight_bits.items()) / weights,
            "stored_bits": 8 * (weights - spared) / weights,
            "size_mb": narrow.stat().st_size / 1e6,
            "int8_mb": wide.stat().st_size / 1e6,
            **_beside(narrow, wide, feed),
        }


def _beside(narrow: Path, wide: Path, feed: dict) -> dict:
    """Return the medians of how much longer one file than another takes, in turns."""
    loads, runs = [], []
    for _ in range(_TURNS):
        load_s, run_s, put_out = zip(*(_timed(path, feed) for path in (narrow, wide)), strict=True)
        assert all(map(np.array_equal, *put_out)), "the outputs differ"
        loads.append(load_s)
        runs.append(run_s)
    return {
        "load_ratio": statistics.median(a / b for a, b in loads),
        "load_ms": 1e3 * statistics.median(a for a, _ in loads),
        "run_ratio": statistics.median(a / b for a, b in runs),
    }


def _timed(path: Path, feed: dict) -> tuple[float, float, list]:
    """Return how long a session takes to open, and the best of its runs, in seconds."""
    began = time.process_time()
    session = open_session(path, threads=1)
    load_s = time.process_time() - began
    wanted = {i.name: feed[i.name] for i in session.get_inputs()}
    runs = []
    for _ in range(_RUNS):
        began = time.process_time()
        put_out = session.run(None, wanted)
        runs.append(time.process_time() - began)
    return load_s, min(runs), put_out


def _storage_cell(found: dict) -> str:
    return (
        f"{found['stored_bits']:.2f}, {found['size_mb']:.3f} MB, load {found['load_ratio']:.2f}, "
        f"run {found['run_ratio']:.2f}"
    )


def _cell(found: dict | None) -> str:
    if found is None or "error" in found:
        return NOT_THERE
    return f"{sqnr_cell(found)} dB, {found['size_mb']:.2f} MB, {found['speedup']:.2f}x"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--eval", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", nargs="*", choices=list(WAYS), metavar="WAY")
    parser.add_argument("--storage", action="store_true")
    parser.add_argument("--name", default="low_bits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
