"""Show how peak memory depends on the number of calibration samples.

    python benchmarks/memory.py [--model effnet_lite0] [--samples 32 128 512] [--limit 12]

Where the model has fewer samples, they are repeated; that changes no size. A run that is
foreseen, on the straight line through the runs before it, to need more than the limit is left out,
and the forecast given.
"""

import argparse
import sys

from common import JobError, load_zoo, run_job, table, workplace, write_feeds, write_results

#: Job of jobs.py and its arguments, by the name in tables.
TOOLS = {
    "ptq kl": ("ptq", {"method": "kl"}),
    "ort minmax": ("ort", {"method": "minmax"}),
    "ort entropy": ("ort", {"method": "entropy"}),
    "ort entropy, 32 at a time": ("ort", {"method": "entropy", "at_a_time": 32}),
}


def main() -> None:
    args = _arguments()
    entry = load_zoo()[args.model]
    peaks: dict[str, dict[int, float]] = {name: {} for name in args.tools}
    cells: dict[str, list[str]] = {name: [] for name in args.tools}
    for count in args.samples:
        with workplace() as place:
            feeds = write_feeds(entry.calib(count), place / "calib", count)
            for name in args.tools:
                forecast = _forecast(peaks[name], count)
                if forecast > args.limit * 1024:
                    cells[name].append(f"({forecast:.0f})")
                    continue
                job, arguments = TOOLS[name]
                given = {"model": entry.onnx, "feeds": feeds, "output": place / "out.onnx"}
                try:
                    found = run_job(job, threads=args.threads, **given, **arguments)
                except JobError as error:
                    print(f"  {name}: {error}", file=sys.stderr)
                    cells[name].append("fails")
                    continue
                peaks[name][count] = found["peak_rss_mb"]
                cells[name].append(f"{found['peak_rss_mb']:.0f}")
                print(f"  {count} samples  {name:26} {cells[name][-1]} MB", file=sys.stderr)
    rows = [(name, *cells[name], _growth(peaks[name])) for name in args.tools]
    print(f"\n### peak memory in MB, {entry.name}, threads: {args.threads}\n")
    print(table(("samples", *map(str, args.samples), "most / least"), rows))
    if any("(" in cell for row in cells.values() for cell in row):
        print(f"\nIn parentheses: forecast, above the limit of {args.limit:g} GB; not run.")
    settings = {k: v for k, v in vars(args).items() if k not in ("tools", "name")}
    write_results(args.name, settings, {"peak_rss_mb": peaks})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="effnet_lite0", metavar="NAME")
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 512], metavar="N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--tools", nargs="+", default=list(TOOLS), metavar="TOOL", help=f"some of {list(TOOLS)}"
    )
    parser.add_argument("--limit", type=float, default=12.0, metavar="GB", help="the most to use")
    parser.add_argument("--name", default="memory", help="results go to results/NAME.json")
    return parser.parse_args()


def _forecast(peaks: dict[int, float], count: int) -> float:
    """Return the memory in MB to expect: on the line through the last two runs."""
    known = list(peaks.items())
    if not known:
        return 0.0
    (n, last), *before = reversed(known)
    if not before:
        return last * count / n
    least, first = before[0]
    return last + (last - first) / (n - least) * (count - n)


def _growth(peaks: dict[int, float]) -> str:
    return f"{max(peaks.values()) / min(peaks.values()):.2f}x" if len(peaks) > 1 else ""


if __name__ == "__main__":
    main()
