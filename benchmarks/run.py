"""Compare ptq with onnxruntime.quantization: wall time, peak memory, accuracy, speed of the result.

    python benchmarks/run.py [--models effnet_lite0] [--samples 128] [--threads 1 2] [--rounds 3]

Every job runs in a process of its own, all jobs in turn, round after round; what is compared are
medians. README.md says what is measured and how it was made fair.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import islice

from common import (
    NOT_THERE,
    Series,
    interleave,
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
    "ptq kl": ("ptq", "kl"),
    "ptq minmax": ("ptq", "minmax"),
    "ort minmax": ("ort", "minmax"),
    "ort percentile": ("ort", "percentile"),
    "ort entropy": ("ort", "entropy"),
}

#: What is compared with what: time of the first over time of the second, and what to reach.
RATIOS = {
    ("ptq kl", "plain inference"): "<= 2",
    ("ort entropy", "ptq kl"): ">= 5",
    ("ort percentile", "ptq kl"): "",
    ("ort minmax", "ptq kl"): ">= 1",
    ("ort minmax", "ptq minmax"): "",
}


def main() -> None:
    args = _arguments()
    zoo = load_zoo()
    found = {}
    for model in args.models:
        for threads in args.threads:
            found[f"{model}, threads {threads}"] = compare(zoo[model], threads, args)
    settings = {k: v for k, v in vars(args).items() if k not in ("models", "name")}
    write_results(args.name, settings, {"comparisons": found})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["effnet_lite0", "fm_mbv2"], metavar="NAME")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--cores", type=int, metavar="N", help="for each job; as many as threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tools", nargs="+", default=list(TOOLS), metavar="TOOL", help=f"some of {list(TOOLS)}"
    )
    parser.add_argument("--eval", type=int, default=128, help="evaluation samples, at most")
    parser.add_argument(
        "--most", type=float, default=40.0, metavar="S", help="repeat no job that took longer"
    )
    parser.add_argument("--name", default="run", help="results go to results/NAME.json")
    return parser.parse_args()


def compare(entry, threads: int, args: argparse.Namespace) -> dict:
    """Run all tools on one model, print the tables and return everything measured."""
    with workplace() as place:
        feeds = write_feeds(entry.calib(args.samples), place / "calib", args.samples)
        held_out = islice((feed for feed, _ in entry.evalset()), args.eval)
        evaluation = write_feeds(held_out, place / "eval")
        common = {"model": entry.onnx, "feeds": feeds, "threads": threads, "cores": args.cores}
        plain = Series("plain inference", "plain", common)
        tools = []
        for name in args.tools:
            job, method = TOOLS[name]
            output = place / f"{name.replace(' ', '-')}.onnx"
            tools.append(Series(name, job, {**common, "method": method, "output": output}))
        interleave([plain, *tools], args.rounds, args.most)
        outputs = {t.name: str(t.arguments["output"]) for t in tools if not t.error}
        given = {"reference": entry.onnx, "candidates": outputs, "feeds": evaluation}
        accuracy = run_job("accuracy", **given)["models"]
        latency = run_job("latency", **given)
    size = len(list(entry.calib(args.samples)))
    print(f"\n### {entry.name}, {args.samples} samples ({size} different), threads: {threads}\n")
    print(_tools_table(plain, tools, accuracy, latency))
    ratios = _ratios([plain, *tools])
    print()
    print(table(("ratio of medians", "work", "whole process", "to reach"), _ratio_rows(ratios)))
    return {
        "series": [s.as_result() for s in (plain, *tools)],
        "accuracy": accuracy,
        "latency": latency,
        "ratios": ratios,
    }


def _tools_table(
    plain: Series, tools: Sequence[Series], accuracy: Mapping, latency: Mapping
) -> str:
    head = ("", "work s", "spread", "n", "prepare s", "process s", "peak MB", "SQNR dB", "speed")
    control = latency["speedup"]["control"]
    rows = [(*_cost(plain), NOT_THERE, f"{control:.2f}x")]
    for tool in tools:
        if tool.error:
            rows.append((tool.name, *[NOT_THERE] * (len(head) - 1)))
            continue
        sqnr = sqnr_cell(accuracy[tool.name])
        speedup = latency["speedup"].get(tool.name)
        rows.append((*_cost(tool), sqnr, f"{speedup:.2f}x" if speedup else NOT_THERE))
    failed = "".join(f"\n\n{t.name}: {t.error}" for t in tools if t.error)
    return table(head, rows) + failed


def _cost(series: Series) -> tuple[str, ...]:
    prepare = "prepare" in (series.runs[0]["stages_s"] if series.runs else {})
    return (
        series.name,
        f"{series.median('work_s'):.2f}",
        f"{series.spread('work_s'):.2f}x",
        str(len(series.runs)),
        f"{series.median('stages_s.prepare'):.2f}" if prepare else NOT_THERE,
        f"{series.median('wall_s'):.2f}",
        f"{series.median('peak_rss_mb'):.0f}",
    )


def _ratios(series: Sequence[Series]) -> dict[str, dict]:
    """Return the ratios that matter, of the work alone and of whole processes."""
    known = {s.name: s for s in series if s.runs}
    found = {}
    for (a, b), goal in RATIOS.items():
        if a in known and b in known:
            found[f"{a} / {b}"] = {
                "work": known[a].median("work_s") / known[b].median("work_s"),
                "process": known[a].median("wall_s") / known[b].median("wall_s"),
                "to_reach": goal,
            }
    return found


def _ratio_rows(ratios: Mapping[str, Mapping]) -> list[tuple[str, ...]]:
    return [
        (name, f"{r['work']:.2f}", f"{r['process']:.2f}", r["to_reach"])
        for name, r in ratios.items()
    ]


if __name__ == "__main__":
    main()
