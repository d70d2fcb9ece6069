"""Compare the speed of ptq's models with onnxruntime.quantization's: how fast against float?

    python benchmarks/speed.py [--models NAME ...] [--threads 1 2] [--rounds 3] [--quick]

Models are those of the zoo, and the architectures with random weights of architectures.py. All of
one model's versions are timed in turn, beside a null control, in a new process every round.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from architectures import ARCHITECTURES
from common import (
    JobError,
    Series,
    interleave,
    load_zoo,
    run_job,
    sqnr_cell,
    workplace,
    write_feeds,
    write_results,
)
from verdicts import DYNAMIC, STATIC, conclusions, dynamic_table, remarks, sqnr_db, static_table

Feed = dict[str, np.ndarray]

#: What quantize_static and quantize_dynamic are told where kernels saturate: 7 bits of weights.
_RANGES = {"full range": {}, "reduced range": {"reduce_range": True}}


def _ptq(**settings: str) -> tuple[str, dict[str, dict]]:
    """Return the job of `ptq quantize` with its default placement, by measured cost."""
    return "ptq", {"": {"method": "kl", "settings": {"place": ["auto"], **settings}}}


#: Job of jobs.py, by the name in tables, and its variants: the one with the best SQNR is taken.
TOOLS = {
    "stock": ("ort", {name: {"method": "minmax", **more} for name, more in _RANGES.items()}),
    "ptq": _ptq(),
    "ptq integer": _ptq(format="integer"),
    "stock dynamic": ("ort_dynamic", _RANGES),
    "ptq dynamic": _ptq(scheme="dynamic"),
}

#: Operators worth a try with scales from every run anew.
_DYNAMIC_OPS = frozenset({"MatMul", "LSTM", "GRU"})

#: The target of CPUs whose kernels saturate.
_SATURATING = "ort-cpu-x86-avx2"

#: The zoo's sentences are padded to 64 tokens; the figures to reach are for 128.
_REPEATED = {"minilm_l6": 2}

_FULL = {"rounds": 3, "seconds": 10.0, "samples": 64, "eval": 32}
_QUICK = {"rounds": 1, "seconds": 2.0, "samples": 8, "eval": 8}


def main() -> None:
    args = _arguments()
    subjects = _subjects()
    names = args.models or list(subjects)
    target = run_job("host")["target"]
    settings = {**{k: getattr(args, k) for k in ("threads", *_FULL)}, "target": target}
    found: dict[str, dict] = {}
    for name in names:
        try:
            found[name] = measure(subjects[name], args, saturates=target == _SATURATING)
        except (JobError, OSError) as error:
            found[name] = {"error": f"{error}", "tools": {}, "timed": {}}
        # after every model: a run of an hour may be cut short
        write_results(args.name, settings, {"models": found})
    for threads in map(str, args.threads):
        print(f"\n### threads: {threads}, target {target}\n")
        print(static_table(found, threads))
        if any("ptq dynamic" in result["tools"] for result in found.values()):
            print(f"\nScales from every run anew (`--scheme dynamic`), threads: {threads}\n")
            print(dynamic_table(found, threads))
        print()
        for line in conclusions(found, threads):
            print(f"- {line}")
    print(*remarks(found), sep="\n- ")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, help="processes to time a model in")
    parser.add_argument("--seconds", type=float, help="for the latencies of a model in a round")
    parser.add_argument("--samples", type=int, help="calibration samples")
    parser.add_argument("--eval", type=int, help="samples for the SQNR, at most")
    parser.add_argument("--quick", action="store_true", help="all of this smaller")
    parser.add_argument("--name", default="speed", help="results go to results/NAME.json")
    args = parser.parse_args()
    for key, value in (_QUICK if args.quick else _FULL).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    unknown = set(args.models or ()) - set(_subjects())
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {[*_subjects()]}")
    return args


# -- what is measured -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A float model and its data.

    Attributes:
        name: what it is called.
        zoo: whether it is a trained one.
        onnx: gives the file, which may be written into the folder given.
        calib: gives so many calibration samples.
        held_out: gives so many others.
        timed: gives the one to time on.
    """

    name: str
    zoo: bool
    onnx: Callable[[Path], Path]
    calib: Callable[[int], Iterator[Feed]]
    held_out: Callable[[int], Iterator[Feed]]
    timed: Callable[[], Feed]


def _subjects() -> dict[str, Subject]:
    zoo = [_of_zoo(entry) for entry in load_zoo().values()]
    return {s.name: s for s in (*zoo, *map(_of_architecture, ARCHITECTURES.values()))}


def _of_zoo(entry) -> Subject:
    def timed() -> Feed:
        count = _REPEATED.get(entry.name, 1)
        return {
            k: np.concatenate([v] * count, axis=1) if count > 1 else v
            for k, v in entry.bench_feed().items()
        }

    return Subject(
        name=entry.name,
        zoo=True,
        onnx=lambda folder: Path(entry.onnx),
        calib=entry.calib,
        held_out=lambda count: islice((feed for feed, _ in entry.evalset()), count),
        timed=timed,
    )


def _of_architecture(architecture) -> Subject:
    def onnx(folder: Path) -> Path:
        path = folder / "float.onnx"
        architecture.save(path)
        return path

    return Subject(
        name=architecture.name,
        zoo=False,
        onnx=onnx,
        calib=architecture.calib,
        held_out=architecture.held_out,
        timed=lambda: next(architecture.held_out(1)),
    )


def measure(subject: Subject, args: argparse.Namespace, *, saturates: bool) -> dict:
    """Quantize one model with every tool, time what came out and return all figures."""
    print(subject.name, file=sys.stderr)
    with workplace() as place:
        model = subject.onnx(place)
        calibration = write_feeds(subject.calib(args.samples), place / "calib")
        held_out = write_feeds(subject.held_out(args.eval), place / "eval")
        timed = write_feeds([subject.timed()], place / "timed")
        tools: dict[str, dict] = {}
        for tool in (*STATIC, *(DYNAMIC if _is_dynamic(model) else ())):
            job, variants = TOOLS[tool]
            arguments = {"model": model, "threads": max(args.threads)}
            if job != "ort_dynamic":
                arguments["feeds"] = calibration
            chosen = dict(variants if saturates else islice(variants.items(), 1))
            stem = place / tool.replace(" ", "-")
            tools[tool] = _make(job, chosen, arguments, stem, held_out)
        outputs = {tool: made.pop("path") for tool, made in tools.items() if "path" in made}
        given = {"reference": model, "candidates": outputs, "feeds": timed, "seconds": args.seconds}
        series = [
            Series(f"threads {threads}", "latency", {**given, "threads": threads})
            for threads in args.threads
        ]
        interleave(series, args.rounds)
        size_bytes = model.stat().st_size
    return {
        "zoo": subject.zoo,
        "size_bytes": size_bytes,
        "tools": tools,
        "timed": {str(s.arguments["threads"]): _summary(s) for s in series},
        "series": [s.as_result() for s in series],
    }


def _is_dynamic(path: Path) -> bool:
    import onnx_ir as ir

    graph = ir.load(path).graph
    return any(n.op_type in _DYNAMIC_OPS for n in ir.traversal.RecursiveGraphIterator(graph))


def _make(
    job: str, variants: Mapping[str, Mapping], arguments: Mapping, stem: Path, held_out: Path
) -> dict:
    """Quantize, and return the variant with the best SQNR, or why there is none."""
    made: dict[str, dict] = {}
    for variant, more in variants.items():
        path = f"{stem}-{len(made)}.onnx"
        try:
            result = run_job(job, output=path, **arguments, **more, cores=arguments["threads"])
            given = {"reference": arguments["model"], "candidates": {"": path}, "feeds": held_out}
            result |= run_job("accuracy", **given)["models"][""]
        except JobError as error:
            result = {"error": str(error)}
        took = result.get("error") or f"SQNR {sqnr_cell(result)}, {result['wall_s']:.1f} s"
        print(f"  {stem.name} {variant:14} {took}", file=sys.stderr)
        made[variant] = {"path": path, "variant": variant, **result}
    works = [result for result in made.values() if "error" not in result]
    if works:
        return {**max(works, key=sqnr_db), "tried": {v: r.get("sqnr_db") for v, r in made.items()}}
    return {"error": next(iter(made.values()))["error"]}


def _summary(series: Series) -> dict[str, dict]:
    """Return latency, speed-up and spread of each model over the rounds.

    The spread is the median of the rounds' own, or how far the rounds are apart, if that is more.
    """
    if series.error:
        return {"error": {"error": series.error}}
    found = {}
    names = set.intersection(*(set(run["speedup"]) for run in series.runs))
    for name in sorted(names):
        speedups = series.values(f"speedup.{name}")
        middle = median(speedups)
        apart = max(max(s / middle, middle / s) for s in speedups)
        found[name] = {
            "median_ms": series.median(f"median_ms.{name}"),
            "speedup": middle,
            "spread": max(series.median(f"spread.{name}"), apart),
        }
    for name, error in series.runs[-1]["failed"].items():
        found[name] = {"error": error}
    return found


if __name__ == "__main__":
    main()
