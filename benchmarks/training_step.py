"""Compare a training step of ptq's graphs in onnxruntime with torch's: as fast, and as exact?

    python benchmarks/training_step.py [--models NAME ...] [--batch N] [--rounds 12] [--threads 1]

A step is the forward pass, the loss, and the gradients of all weights. torch runs the same forward
graph by onnx2fx; without these two (`pip install torch onnx2fx`) there is nothing to compare with,
and only our own time is given. Steps of both are run in turn.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from common import NOT_THERE, load_zoo, table, write_results
from training_graphs import Step, torch_runner, training_step, worst_difference

#: Samples of a step, where the model takes more than one.
BATCHES = {
    "fm_mbv2": 32,
    "effnet_lite0": 8,
    "ppocr_rec": 8,
    "ppocr_cls": 8,
    "minilm_l6": 8,
    "layout_picodet": 1,
    "esrgan_slim_x2": 1,
    "basic_pitch": 1,
    "nsnet2_gru": 1,
}

HEAD = (
    "model",
    "batch",
    "operators",
    "weights",
    "frozen",
    "off by",
    "torch off by",
    "ours ms",
    "torch ms",
    "ours / torch",
)


def main() -> None:
    args = _arguments()
    zoo, found = load_zoo(), {}
    compared = all(find_spec(name) for name in ("torch", "onnx2fx"))
    if not compared:
        print("torch and onnx2fx are not installed: nothing to compare with", file=sys.stderr)
    for name in args.models:
        entry = zoo[name]
        step = training_step(Path(entry.onnx), entry.calib(), args.batch or BATCHES[name])
        found[name] = {**measure(step, args, compared=compared), "batch": step.batch}
        print(f"  {name}", file=sys.stderr)
    print(f"\n### a training step, threads: {args.threads}\n")
    print(table(HEAD, [_row(name, one) for name, one in found.items()]))
    settings = {k: getattr(args, k) for k in ("rounds", "threads")}
    write_results(args.name, settings, {"models": found})


def measure(step: Step, args: argparse.Namespace, *, compared: bool) -> dict:
    """Return what a step takes, and how far its gradients are from those of torch in float64."""
    found = {
        "operators": list(step.nodes),
        "weights": len(step.weights),
        "frozen": {f.value: f"{f.op_type}: {f.reason}" for f in step.frozen},
        "chosen": dict(step.chosen),
    }
    runs = {"ours": step.runner(threads=args.threads)}
    if compared:
        runs["torch"] = torch_runner(step, threads=args.threads)
        _, *exact = torch_runner(step, double="GRU" not in step.operators)()
        found["off_by"] = {name: worst_difference(run()[1:], exact) for name, run in runs.items()}
    found["ms"] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):
        for name, run in runs.items():
            found["ms"][name].append(_milliseconds(run))
    found["ms"] = {name: taken[1:] for name, taken in found["ms"].items()}
    return found


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _row(name: str, one: dict) -> tuple[str, ...]:
    before, after = one["operators"]
    ours, torch = one["ms"]["ours"], one["ms"].get("torch")
    cells = [name, one["batch"], f"{before} -> {after}", one["weights"], len(one["frozen"])]
    if torch is None:
        cells += [NOT_THERE, NOT_THERE, f"{median(ours):.1f}", NOT_THERE, NOT_THERE]
        return tuple(map(str, cells))
    cells += [f"{one['off_by'][tool]:.1e}" for tool in ("ours", "torch")]
    low, middle, high = np.quantile(np.divide(ours, torch), [0.25, 0.5, 0.75])
    cells += [f"{median(ours):.1f}", f"{median(torch):.1f}"]
    cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return tuple(map(str, cells))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(BATCHES), metavar="NAME")
    parser.add_argument("--batch", type=int, metavar="N", help="samples of a step")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="training_step", help="results go to results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
