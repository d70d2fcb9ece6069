"""Hold ptq against other quantizers on one model: error, task figure, size, speed and cost.

    python benchmarks/rivals.py MODEL --calib FOLDER --eval FOLDER --json results.jsonl \\
        [--rows GLOB ...] [--venv nncf=PYTHON ...] [--metric module:function] [--keep FOLDER]

Every row of rivals.toml quantizes the same model on the same samples in a process of its own, and
what comes out is measured on the same held-out samples by the same code. Figures are appended to
the file of --json as they come; a row that is run again takes the place of its older figures. The
table of all models in the file goes to stdout; `--table` prints it without running anything.
"""

import argparse
import fnmatch
import importlib
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, JobError, environment, run_job, workplace
from rival_table import merged, tables

#: What runs with the interpreter of this script.
_HERE = ("ptq", "onnxruntime")

#: What the latency job finds under this name is the float model.
FLOAT = "float"


@dataclass(frozen=True)
class Row:
    """One way to quantize.

    Attributes:
        name: what it is called, alone in its group.
        group: which rows it is compared with.
        by: the tool, which ``--venv`` gives a Python for.
        script: the file of the job, below benchmarks/.
        job: the function there.
        settings: its arguments.
    """

    name: str
    group: str
    by: str
    script: str
    job: str
    settings: Mapping[str, object]

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def file(self) -> str:
        """The name of what it makes."""
        return "".join(c if c.isalnum() else "-" for c in self.key) + ".onnx"


def main() -> None:
    args = _arguments()
    if args.model is not None:
        rows = [row for row in read_rows(args.rows_file) if _wanted(row, args)]
        if args.keep is not None:
            _measure(args, rows, args.keep / args.name)
        else:
            with workplace() as place:
                _measure(args, rows, place)
    print(tables(merged(_lines(args.json))))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file such as rivals.toml."""
    return [Row(**row) for row in tomllib.loads(path.read_text())["row"]]


def _wanted(row: Row, args: argparse.Namespace) -> bool:
    named = any(fnmatch.fnmatchcase(row.key, glob) for glob in args.rows)
    return named and (row.by in _HERE or row.by in args.venv)


def _lines(path: Path) -> Iterator[dict]:
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def _measure(args: argparse.Namespace, rows: list[Row], place: Path) -> None:
    """Run all rows of one model, and append what is found."""
    place.mkdir(parents=True, exist_ok=True)
    calibration = _some(args.calib, args.samples, place / "calib")
    evaluation = _some(args.eval, args.eval_samples, place / "eval")

    def add(key: str, **found: object) -> None:
        record = {"model": args.name, "row": key, **found}
        with args.json.open("a") as file:
            file.write(json.dumps(record, default=float) + "\n")

    size_bytes = args.model.stat().st_size
    if FLOAT not in merged(_lines(args.json)).get(args.name, {}):
        add(FLOAT, size_bytes=size_bytes, environment=environment(), samples=args.samples)
    prepared = _prepared(args.model, place) if rows else args.model
    for row in rows:
        print(f"{args.name}: {row.key}", file=sys.stderr, flush=True)
        output = place / row.file
        output.unlink(missing_ok=True)
        try:
            made = _quantize(row, args, prepared, calibration, output)
            given = {"reference": args.model, "candidates": {"": output}, "feeds": evaluation}
            measured = run_job("accuracy", cores=args.cores, **given)["models"][""]
            add(row.key, **{**made, **measured})
        except JobError as error:
            output.unlink(missing_ok=True)
            add(row.key, error=str(error))
            print(f"  {error}", file=sys.stderr)
    outputs = {r.key: place / r.file for r in read_rows(args.rows_file)}
    outputs = {key: path for key, path in outputs.items() if path.exists()}
    known = merged(_lines(args.json))[args.name]
    for key, path in {FLOAT: args.model, **outputs}.items():
        if args.metric and "figure" not in known.get(key, {}):
            add(key, **_figure(args.metric, path))
    if outputs and args.seconds:
        for key, timed in _latencies(args, evaluation, outputs).items():
            add(key, **timed)


def _some(folder: Path, count: int, place: Path) -> Path:
    """Return a folder with so many of the files, evenly spaced."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        sys.exit(f"no .npz file in '{folder}'; write one for each feed")
    count = min(count, len(files))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for i in (round(k * (len(files) - 1) / max(count - 1, 1)) for k in range(count)):
        (place / files[i].name).symlink_to(files[i].resolve())
    return place


def _prepared(model: Path, place: Path) -> Path:
    """Return the model as the documentation of onnxruntime recommends to prepare it, for rivals."""
    found = run_job("prepared", model=model, output=place / "prepared.onnx")
    print(*found["notes"], sep="\n", file=sys.stderr)
    return Path(found["path"])


def _quantize(
    row: Row, args: argparse.Namespace, prepared: Path, calibration: Path, output: Path
) -> dict:
    """Return what quantizing costs: the life of the process, and its peak memory."""
    more = {} if row.job == "ort_dynamic" else {"feeds": calibration}
    found = run_job(
        row.job,
        script=ROOT / "benchmarks" / row.script,
        python=sys.executable if row.by in _HERE else args.venv[row.by],
        most_s=args.most,
        cores=args.cores,
        model=args.model if row.by in _HERE else prepared,
        output=output,
        **more,
        **row.settings,
    )
    return {key: found[key] for key in ("wall_s", "cpu_s", "peak_rss_mb")}


def _figure(metric: str, path: Path) -> dict:
    """Return the figure of a model by --metric."""
    module, _, function = metric.partition(":")
    try:
        return {"figure": float(getattr(importlib.import_module(module), function)(path))}
    except Exception as error:  # noqa: BLE001  it is the user's function, and runs the model
        return {"figure_error": f"{type(error).__name__}: {error}"[:200]}


def _latencies(args: argparse.Namespace, evaluation: Path, outputs: Mapping[str, Path]) -> dict:
    """Time all models in turn in one process, and return the speed of each against float."""
    given = {"reference": args.model, "candidates": outputs, "feeds": evaluation}
    timed = run_job("latency", cores=args.cores, seconds=args.seconds, **given)
    found: dict[str, dict] = {key: {"speed_error": e} for key, e in timed["failed"].items()}
    for key, speedup in timed["speedup"].items():
        row = FLOAT if key == "control" else key
        if key != FLOAT:
            found[row] = {"speedup": speedup, "spread": timed["spread"][key]}
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path, help="the float model")
    parser.add_argument("--calib", type=Path, help="folder of .npz files, one feed each")
    parser.add_argument("--eval", type=Path, help="others, to measure on")
    parser.add_argument("--name", help="what to call the model; by default its file or folder")
    parser.add_argument("--metric", help="package.module:function of a path; higher is better")
    parser.add_argument("--json", type=Path, required=True, help="JSON lines to append to")
    parser.add_argument("--keep", type=Path, help="where models stay, to be timed again later")
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="GLOB", help="'GROUP: NAME'")
    parser.add_argument("--rows-file", type=Path, default=ROOT / "benchmarks" / "rivals.toml")
    parser.add_argument("--venv", nargs="+", default=[], metavar="TOOL=PYTHON")
    parser.add_argument("--samples", type=int, default=32, help="for calibration, at most")
    parser.add_argument("--eval-samples", type=int, default=64, help="for the SQNR, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for all latencies; 0: none")
    parser.add_argument("--most", type=float, default=1200.0, help="seconds a row may take")
    parser.add_argument("--cores", type=int, default=1, help="that a process may use")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    args.venv = dict(pair.split("=", 1) for pair in args.venv)
    if args.table:
        args.model = None
    elif None in (args.model, args.calib, args.eval):
        parser.error("give MODEL, --calib and --eval, or --table")
    else:
        named = args.model.stem if args.model.stem != "model" else args.model.parent.name
        args.name = args.name or named
        args.model, args.keep = args.model.resolve(), args.keep and args.keep.resolve()
    return args


if __name__ == "__main__":
    main()
