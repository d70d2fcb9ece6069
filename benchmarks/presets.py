"""What the presets of `ptq quantize` are worth: accuracy, size and speed on models of the zoo.

    python benchmarks/presets.py [--models NAME ...] [--samples 32] [--eval 48]

Every model is quantized by the command line with every preset, from the same samples. SQNR and
latency are those of the report, on held-out data; the last table has the zoo's own metric.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from common import (
    NOT_THERE,
    ROOT,
    JobError,
    load_zoo,
    run_job,
    table,
    workplace,
    write_feeds,
    write_results,
)

from ptq.presets import PRESETS


def main() -> None:
    args = _arguments()
    zoo = load_zoo()
    found = {name: measure(zoo[name], args) for name in args.models or zoo}
    settings = {"samples": args.samples, "eval": args.eval, "seconds": args.seconds}
    write_results(args.name, settings, {"models": found})
    for title, cell in (
        (f"SQNR in dB on held-out data, calibrated on {args.samples} samples", _sqnr),
        ("size in MB", _size),
        ("speed against float (1 thread)", _speed),
        ("the task's own metric", _metric),
    ):
        print(f"\n### {title}\n")
        print(table(("model", "float", *PRESETS), _rows(found, cell)))
    for name, result in found.items():
        for preset, figures in result.items():
            if "error" in figures:
                print(f"\n{name}, {preset}: {figures['error']}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--samples", type=int, default=32, help="calibration samples")
    parser.add_argument("--eval", type=int, default=48, help="held-out samples, at most")
    parser.add_argument("--seconds", type=float, default=2.0, help="as of `ptq quantize`")
    parser.add_argument("--place", help="as of `ptq quantize`; by default what the preset says")
    parser.add_argument("--no-metric", action="store_true", help="leave out the zoo's own metric")
    parser.add_argument("--name", default="presets", help="results go to results/NAME.json")
    return parser.parse_args()


def measure(entry, args: argparse.Namespace) -> dict:
    """Quantize one model with every preset and return all figures, by preset."""
    found: dict[str, dict] = {"float": {"size_bytes": Path(entry.onnx).stat().st_size}}
    with workplace() as place:
        feeds = write_feeds(entry.calib(args.samples), place / "calib")
        held_out = islice((feed for feed, _ in entry.evalset()), args.eval)
        evaluation = write_feeds(held_out, place / "eval")
        for preset in PRESETS:
            print(f"  {entry.name} {preset}", file=sys.stderr)
            output = place / f"{preset}.onnx"
            given = ["--calib-data", feeds, "--eval-data", evaluation, "--seconds", args.seconds]
            given += ["--place", args.place] if args.place else []
            try:
                found[preset] = quantize(entry.onnx, preset, output, given)
                if not args.no_metric:
                    found[preset] |= run_job("metric", model=entry.name, path=output)
            except JobError as error:
                found[preset] = {"error": str(error)}
        if not args.no_metric:
            found["float"] |= run_job("metric", model=entry.name, path=entry.onnx)
    return found


def quantize(model, preset: str, output: Path, given: list) -> dict:
    """Run the command and return the figures of its report.

    Raises:
        JobError: it failed.
    """
    report = output.with_suffix(".json")
    command = [sys.executable, "-m", "ptq", "quantize", model, "--no-recipe", "--preset", preset]
    command += [*given, "-o", output, "--json", report, "--allow-larger"]
    # what earlier runs measured is neither used nor added to
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PTQ_CACHE": ""}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise JobError(done.stderr.strip().splitlines()[-1])
    made = json.loads(report.read_text())
    return {
        "size_bytes": made["output"]["size_bytes"],
        "sqnr_db": made["accuracy"]["sqnr_db"],
        "speedup": made["latency"]["speedup"],
        "spread": made["latency"]["spread"],
        "scheme": made["scheme"],
        "chosen": made["placement"]["chosen"] if made["placement"] else None,
    }


def _rows(found: Mapping, cell: Callable[[Mapping], str]) -> list[tuple[str, ...]]:
    return [(name, *(cell(r[p]) for p in ("float", *PRESETS))) for name, r in found.items()]


def _sqnr(result: Mapping) -> str:
    if "sqnr_db" not in result:
        return NOT_THERE
    return "equal" if result["sqnr_db"] is None else f"{result['sqnr_db']:.1f}"


def _size(result: Mapping) -> str:
    return f"{result['size_bytes'] / 1e6:.2f}" if "size_bytes" in result else NOT_THERE


def _speed(result: Mapping) -> str:
    return f"{result['speedup']:.2f}x" if "speedup" in result else NOT_THERE


def _metric(result: Mapping) -> str:
    return f"{result['primary']:.3f}" if "primary" in result else NOT_THERE


if __name__ == "__main__":
    main()
