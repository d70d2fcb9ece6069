"""Put all models of the zoo into one table: accuracy, size and speed, float and quantized.

    python benchmarks/accuracy.py [--models NAME ...] [--samples 64]

Every model is quantized by onnxruntime.quantization (minmax) and by ptq with several range
methods, from the same samples. SQNR and the zoo's own metric are taken on held-out data.
"""

import argparse
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from common import (
    NOT_THERE,
    JobError,
    load_zoo,
    run_job,
    sqnr_cell,
    table,
    workplace,
    write_feeds,
    write_results,
)

#: Job of jobs.py and range method, by the name in tables.
TOOLS = {
    "ort minmax": ("ort", "minmax"),
    "ptq kl": ("ptq", "kl"),
    "ptq minmax": ("ptq", "minmax"),
    "ptq mse": ("ptq", "mse"),
}


def main() -> None:
    args = _arguments()
    zoo = load_zoo()
    found = {name: measure(zoo[name], args) for name in args.models or zoo}
    settings = {"samples": args.samples, "eval": args.eval, "seconds": args.seconds}
    write_results(args.name, settings, {"models": found})
    tools = args.tools
    print(f"\n### SQNR in dB on held-out data, calibrated on {args.samples} samples\n")
    print(table(("model", *tools), _rows(found, tools, sqnr_cell)))
    print("\n### the task's own metric\n")
    print(table(("model", "metric", "float", *tools), _rows(found, tools, _metric, _float_metric)))
    print("\n### size, and speed against float (1 thread)\n")
    # range methods change neither size nor speed: one of each tool is shown
    sized = [tool for tool in ("ort minmax", "ptq kl") if tool in tools]
    head = ("model", "float MB", *(f"{t} MB" for t in sized), *(f"{t} speed" for t in sized))
    rows = [
        (
            name,
            _size(r, "float"),
            *(_size(r, t) for t in sized),
            *(_speed(r, t) for t in (*sized, "control")),
        )
        for name, r in found.items()
    ]
    print(table((*head, "control"), rows))
    for name, result in found.items():
        errors: dict[str, list[str]] = {}
        for tool in tools:
            if "error" in result[tool]:
                errors.setdefault(result[tool]["error"], []).append(tool)
        for error, failed in errors.items():
            print(f"\n{name}, {', '.join(failed)}: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--samples", type=int, default=64, help="calibration samples")
    parser.add_argument("--eval", type=int, default=128, help="samples for the SQNR, at most")
    parser.add_argument(
        "--tools", nargs="+", default=list(TOOLS), metavar="TOOL", help=f"some of {list(TOOLS)}"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="for the latencies of a model")
    parser.add_argument("--name", default="accuracy", help="results go to results/NAME.json")
    return parser.parse_args()


def measure(entry, args: argparse.Namespace) -> dict:
    """Quantize one model with every tool and return all figures, by tool."""
    print(f"  {entry.name}", file=sys.stderr)
    found: dict[str, dict] = {tool: {} for tool in args.tools}
    with workplace() as place:
        feeds = write_feeds(entry.calib(args.samples), place / "calib")
        held_out = islice((feed for feed, _ in entry.evalset()), args.eval)
        evaluation = write_feeds(held_out, place / "eval")
        outputs = {}
        for tool in args.tools:
            job, method = TOOLS[tool]
            output = place / f"{tool.replace(' ', '-')}.onnx"
            given = {"model": entry.onnx, "feeds": feeds, "output": output, "method": method}
            try:
                found[tool]["made"] = run_job(job, **given)
                outputs[tool] = str(output)
                found[tool] |= run_job("metric", model=entry.name, path=output)
            except JobError as error:
                found[tool]["error"] = str(error)
        given = {"reference": entry.onnx, "candidates": outputs, "feeds": evaluation}
        for tool, result in run_job("accuracy", **given)["models"].items():
            found[tool] |= result
        latency = run_job("latency", seconds=args.seconds, **given)
    found["float"] = run_job("metric", model=entry.name, path=entry.onnx)
    found["float"]["size_bytes"] = Path(entry.onnx).stat().st_size
    for name, speedup in latency["speedup"].items():
        found.setdefault(name, {})["speedup"] = speedup
        found[name]["median_ms"] = latency["median_ms"][name]
    return found


def _rows(found: Mapping, tools, cell, first=lambda result: ()) -> list[tuple[str, ...]]:
    return [
        (name, *first(result), *(cell(result[tool]) for tool in tools))
        for name, result in found.items()
    ]


def _metric(result: Mapping) -> str:
    return f"{result['primary']:.3f}" if "primary" in result else NOT_THERE


def _float_metric(result: Mapping) -> tuple[str, str]:
    return result["float"]["primary_name"], _metric(result["float"])


def _size(result: Mapping, tool: str) -> str:
    size = result[tool].get("size_bytes")
    return f"{size / 1e6:.2f}" if size else NOT_THERE


def _speed(result: Mapping, tool: str) -> str:
    speedup = result[tool].get("speedup")
    return f"{speedup:.2f}x" if speedup else NOT_THERE


if __name__ == "__main__":
    main()
