"""Measure every method at every width: what docs/methods.md shows.

    python benchmarks/methods.py [--models DIR] [--jobs N] [--only NAME ...]
    python benchmarks/methods.py --page     # only write docs/methods.md anew, from the results

DIR holds a folder for each model, with ``model.onnx`` and two folders of .npz files, ``calib`` and
``eval``; the digits are in tests/models. Ways are options of `ptq quantize`, made from what is
registered, so that a new method is measured without a word here. Results are kept in
results/methods.json by model and way as they come; a second run measures what is missing. A way
that fails is a row that says why.
"""

import argparse
import fnmatch
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path

from common import RESULTS, ROOT, JobError, run_job, write_results
from jobs import serve
from method_page import PAGE, page
from method_ways import SECTIONS, Way, ways

#: What all ways have in common.
COMMON = ("--place", "all", "--allow-larger", "--threads", "1", "--seconds", "0.1", "--no-recipe")
SAMPLES = 32

#: Stages of a run that are its proof, not the work.
PROOF = ("evaluate", "time", "profile")

#: No way takes longer, in seconds.
MOST_S = 1200.0

RESULT = RESULTS / "methods.json"


@dataclass(frozen=True)
class Data:
    """A model and its data."""

    model: Path
    calib: Path
    eval: Path
    labels: Path | None = None


def main() -> None:
    args = _arguments()
    if not args.page:
        found = _kept()
        chosen = {name: _data(name, args.models) for name in args.only or _names()}
        todo = [way for way in ways(args.section) if way.model in chosen and _wanted(way, args)]
        todo = [way for way in todo if _missing(way, found, args)]
        print(f"{len(todo)} ways to measure", file=sys.stderr)
        _measure(todo, chosen, found, args)
    PAGE.write_text(page(json.loads(RESULT.read_text())), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


def _measure(
    todo: Sequence[Way], chosen: Mapping[str, Data], found: dict, args: argparse.Namespace
) -> None:
    """Measure ways, those of one method and model in one process, and keep each as it comes."""
    groups = [list(group) for _, group in groupby(todo, lambda way: (way.model, way.group))]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(lambda g: list(_run(g, chosen)), group) for group in groups]
        for job in as_completed(jobs):
            for way, result in job.result():
                found.setdefault(way.model, {})[way.options] = result
                said = result.get("error") or f"{result['sqnr_db']} dB, {result['seconds']:.1f} s"
                print(f"  {way.model:13} {way.options:64} {said}", file=sys.stderr)
            settings = {"samples": SAMPLES, "common": " ".join(COMMON)}
            write_results("methods", settings, {"models": _sorted(found)})


def _run(group: Sequence[Way], chosen: Mapping[str, Data]) -> Iterator[tuple[Way, dict]]:
    """Yield the result of each way; where their process ends early, each has one of its own."""
    data = chosen[group[0].model]
    given = {name: str(getattr(data, name) or "") for name in ("model", "calib", "eval", "labels")}
    try:
        found = run_job(
            "measure",
            script=Path(__file__).resolve(),
            cores=len(os.sched_getaffinity(0)),
            most_s=MOST_S * len(group),
            given=given,
            options=[way.options for way in group],
        )["found"]
    except JobError as error:
        if len(group) == 1:
            yield group[0], {"error": str(error)}
            return
        for way in group:
            yield from _run([way], chosen)
        return
    yield from zip(group, found, strict=True)


def measure(given: dict, options: list[str], threads: int) -> dict:
    """Quantize one model in each way, by the command itself; what cannot be done says why."""
    del threads
    return {"found": [_one(given, way) for way in options]}


def _one(given: dict, way: str) -> dict:
    from ptq.cli.quantize import command
    from ptq.errors import PtqError

    data = ["--eval-data", given["eval"]]
    data += ["--labels", given["labels"]] if given["labels"] else []
    data += ["--calib-data", given["calib"], "--samples", str(SAMPLES)] if _calibrated(way) else []
    words = [given["model"], *shlex.split(way), *COMMON, *data, "--force"]
    words += ["-o", "q.onnx", "--json", "q.json"]
    said = StringIO()
    try:
        with redirect_stdout(said):
            command.main(words, standalone_mode=False)
    except PtqError as error:
        return {"error": str(error).replace(given["model"], "model.onnx")}
    except Exception as error:  # noqa: BLE001 - a way that fails is a row, not the end
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return _figures(json.loads(Path("q.json").read_text()))


def _figures(report: dict) -> dict:
    accuracy, counts = report["accuracy"], report["weight_bits"]
    stages = {name: s for name, s in report["stages_s"].items() if name not in PROOF}
    weights = sum(counts.values())
    bits = sum(int(width) * n for width, n in counts.items()) / weights if weights else None
    return {
        "sqnr_db": accuracy["sqnr_db"],
        "agreement": accuracy["agreement"],
        "top1": accuracy["quantized_top1"],
        "float_top1": accuracy["float_top1"],
        "size_bytes": report["output"]["size_bytes"],
        "float_bytes": report["input"]["size_bytes"],
        "weight_bits": bits,
        "seconds": round(sum(stages.values()), 2),
    }


def _calibrated(way: str) -> bool:
    """Whether the way takes data: weights alone need none, unless something looks at outputs."""
    words = {*shlex.split(way)}
    if words & {"--data-free", "dynamic"}:
        return False
    return "weight-only" not in words or bool(words & {"--rounding", "--bias-correct", "--awq"})


def _kept() -> dict:
    return json.loads(RESULT.read_text())["models"] if RESULT.exists() else {}


def _sorted(found: Mapping[str, Mapping]) -> dict:
    """Return results in an order that does not depend on which came first."""
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _names() -> list[str]:
    return list(dict.fromkeys(way.model for way in ways(SECTIONS)))


def _data(name: str, folder: Path) -> Data:
    if name == "digits_cnn":
        models = ROOT / "tests" / "models"
        held_out = models / "digits_eval.npz"
        return Data(models / "digits_cnn.onnx", models / "digits_calib.npz", held_out, held_out)
    found = folder.resolve() / name
    if not (found / "model.onnx").is_file():
        sys.exit(f"there is no '{found / 'model.onnx'}'; give the folder of models by --models")
    return Data(found / "model.onnx", found / "calib", found / "eval")


def _wanted(way: Way, args: argparse.Namespace) -> bool:
    return fnmatch.fnmatch(way.options, args.match)


def _missing(way: Way, found: Mapping, args: argparse.Namespace) -> bool:
    kept = found.get(way.model, {}).get(way.options)
    return args.again or kept is None or (args.failed and "error" in kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(os.environ.get("PTQ_ZOO", ROOT.parent / "shared" / "zoo"))
    parser.add_argument("--models", type=Path, default=default, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--only", nargs="*", choices=_names(), metavar="MODEL")
    parser.add_argument("--section", nargs="*", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--match", default="*", metavar="GLOB", help="only ways like this")
    parser.add_argument("--failed", action="store_true", help="measure again what has failed")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--page", action="store_true", help="only write docs/methods.md anew")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        serve(measure)
    else:
        main()
