"""Compare training methods on models: what a short training on unlabelled samples brings.

    python benchmarks/training_methods.py FOLDER ... [--bits W4A4 W4A8] [--steps 300]
        [--methods pact qil ...] [--seeds 0 1 2] [--samples 2048] [--labels FILE]

Every FOLDER holds ``model.onnx`` and samples to calibrate and to judge on, ``calib`` and ``eval``,
each a folder of .npz files or an .npz file of that name, and ``labels.npy`` where the right classes
are known. Everything that the target runs is in integers (``--place all``). The tables go to
stdout as markdown, all figures to results/training_methods.json, as they come.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

from common import NOT_THERE, table, workplace, write_results

import ptq
from ptq.errors import PtqError
from ptq.options import RunOptions
from ptq.train.fakequant import QAT_METHODS

#: What training starts from, and is held against.
NONE = "no training"


def main() -> None:
    args = _arguments()
    found: dict[str, list[dict]] = {}
    settings = {"steps": args.steps, "samples": args.samples, "lr": args.learning_rate}
    for folder in args.folders:
        for bits in args.bits:
            for method in (NONE, *args.methods):
                for seed in args.seeds if method != NONE else args.seeds[:1]:
                    print(folder.name, bits, method, seed, file=sys.stderr)
                    one = {
                        "method": method,
                        "seed": seed,
                        **measure(folder, bits, method, seed, args),
                    }
                    found.setdefault(f"{folder.name}, {bits}", []).append(one)
                    write_results(args.name, settings, {"runs": found})
    for title, runs in found.items():
        print(f"\n{title}\n")
        print(table(("", "SQNR dB", "agreement %", "top-1 %", "seconds"), _rows(runs)))


def measure(folder: Path, bits: str, method: str, seed: int, args: argparse.Namespace) -> dict:
    """Quantize one model in one way; what cannot be done says why."""
    weights, activations = map(int, re.fullmatch(r"W(\d)A(\d)", bits).groups())
    labels = folder / "labels.npy"
    with workplace() as place:
        options = RunOptions(
            output=place / "q.onnx",
            samples=args.samples,
            evaluation=str(_samples(folder, "eval")),
            labels=labels if labels.is_file() else None,
            seconds=0.1,
        )
        config = ptq.QuantizeConfig(
            bits=weights,
            activation_bits=activations,
            edge_bits=args.edge_bits,
            calib="mse",
            place=("all",),
            allow_larger=True,
            fine_tune="" if method == NONE else method,
            steps=args.steps,
            learning_rate=args.learning_rate,
            seed=seed,
        )
        try:
            report = ptq.quantize(
                folder / "model.onnx", str(_samples(folder, "calib")), config, options=options
            ).report
        except PtqError as error:
            return {"error": str(error)}
    accuracy = report.accuracy
    return {
        "sqnr_db": accuracy.sqnr_db,
        "agreement": accuracy.agreement,
        "top1": accuracy.quantized_top1,
        "float_top1": accuracy.float_top1,
        "seconds": sum(report.stages_s.values()),
    }


def _samples(folder: Path, name: str) -> Path:
    file = folder / f"{name}.npz"
    return file if file.is_file() else folder / name


def _rows(runs: list[dict]) -> list[tuple[str, ...]]:
    methods = dict.fromkeys(run["method"] for run in runs)
    rows = []
    for method in methods:
        done = [run for run in runs if run["method"] == method and "error" not in run]
        cells = (_cell(done, "sqnr_db"), _cell(done, "agreement", 100), _cell(done, "top1", 100))
        rows.append((method, *cells, _cell(done, "seconds", spread=False)))
    floats = {run["float_top1"] for run in runs if run.get("float_top1") is not None}
    return [*rows, *(("float", NOT_THERE, NOT_THERE, f"{100 * f:.2f}", NOT_THERE) for f in floats)]


def _cell(runs: list[dict], key: str, by: float = 1.0, *, spread: bool = True) -> str:
    """Return a mean over seeds, and the spread from the lowest to the highest."""
    values = [by * run[key] for run in runs if run[key] is not None]
    if not values:
        return NOT_THERE
    digits = 2 if by != 1.0 else 1
    mean = f"{statistics.mean(values):.{digits if spread else 0}f}"
    if len(values) == 1 or not spread:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--bits", nargs="+", default=["W4A4", "W4A8"])
    parser.add_argument("--methods", nargs="*", default=list(QAT_METHODS.methods()))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--edge-bits", type=int, default=8)
    parser.add_argument("--name", default="training_methods")
    return parser.parse_args()


if __name__ == "__main__":
    main()
