"""Compare ways of rounding weight-only models: SQNR on held-out data, size and seconds.

    python benchmarks/weight_only.py FOLDER ... [--bits 4] [--samples 32] [--eval 64]

Every FOLDER holds ``model.onnx`` and two folders of .npz files, ``calib`` and ``eval``. Products
are computed from codes (MatMulNBits), which no timing decides here. A method that lacks the width
has no figures. Tables go to stdout as
markdown, all figures to results/NAME.json after every model.
"""

import argparse
import sys
import time
from pathlib import Path

from common import NOT_THERE, sqnr_cell, table, workplace, write_results

import ptq
from ptq.data.dataset import evenly_spaced
from ptq.embedded import PinnedPlacement

#: What is asked for, beside the number of bits; blocks of 32, symmetric unless it is said.
SETTINGS = {
    "to nearest": {},
    "`--bias-correct`": {"bias_correct": True},
    "`--awq`": {"awq": True},
    "`--rounding gptq`": {"rounding": "gptq"},
    "`--rounding gptq --bias-correct`": {"rounding": "gptq", "bias_correct": True},
    "`--asymmetric-weights`": {"weights_symmetric": False},
    "`--asymmetric-weights --rounding gptq --bias-correct`": {
        "weights_symmetric": False,
        "rounding": "gptq",
        "bias_correct": True,
    },
    **{
        f"`--weight-method {method}`": {"weight_method": method}
        for method in (
            "hqq",
            "kquant",
            "kquant:scale_bits=0",
            "nf4",
            "mxfp4",
            "mxfp6",
            "mxint8",
            "fp8",
            "mxfp8",
        )
    },
    "`--weight-method kquant --rounding gptq --bias-correct`": {
        "weight_method": "kquant",
        "rounding": "gptq",
        "bias_correct": True,
    },
}


def main() -> None:
    args = _arguments()
    found: dict[str, dict] = {}
    for folder in args.folders:
        with workplace() as place:
            heldout = _some(folder / "eval", args.eval, place / "eval")
            found[folder.name] = {
                name: measure(folder, heldout, place / "out.onnx", args, changes)
                for name, changes in SETTINGS.items()
                if not args.settings or name in args.settings
            }
        settings = {"bits": args.bits, "samples": args.samples, "eval": args.eval}
        write_results(args.name, settings, {"models": found})
    for title, cell in (
        (f"SQNR in dB with {args.bits} bits", sqnr_cell),
        ("size in MB", lambda r: f"{r['bytes'] / 1e6:.2f}" if "bytes" in r else NOT_THERE),
        ("seconds", lambda r: f"{r['seconds']:.0f}" if "seconds" in r else NOT_THERE),
    ):
        print(f"\n### {title}\n")
        rows = [[name, *(cell(r.get(name, {})) for r in found.values())] for name in SETTINGS]
        print(table(("", *found), rows))
    for model, results in found.items():
        for name, result in results.items():
            if "error" in result:
                print(f"\n{model}, {name}: {result['error']}")


def measure(
    folder: Path, heldout: Path, out: Path, args: argparse.Namespace, changes: dict
) -> dict:
    config = ptq.QuantizeConfig(
        scheme="weight-only", bits=args.bits, block=args.block, allow_larger=True, **changes
    )
    options = ptq.RunOptions(
        output=out, force=True, samples=args.samples, evaluation=str(heldout), seconds=0.05,
        threads=args.threads, placement=PinnedPlacement(),
    )  # fmt: skip
    begun = time.perf_counter()
    try:
        report = ptq.quantize(
            folder / "model.onnx", str(folder / "calib"), config, options=options
        ).report
    except ptq.PtqError as error:
        return {"error": str(error)}
    stages = report.stages_s
    result = {
        "sqnr_db": report.accuracy.sqnr_db,
        "bytes": report.output.size_bytes,
        "seconds": sum(stages.get(s, 0.0) for s in ("round", "correct", "moments", "awq")),
        "process_s": time.perf_counter() - begun,
        "kept": [
            f"{r.step}: {r.before_db} to {r.after_db} dB, {r.kept}" for r in report.refinements
        ],
    }
    print(folder.name, changes, result, file=sys.stderr, flush=True)
    return result


def _some(folder: Path, count: int, place: Path) -> Path:
    """Return a folder with so many of the files, evenly spaced."""
    files = sorted(folder.iterdir())
    place.mkdir()
    for i in evenly_spaced(len(files), count):
        (place / files[i].name).symlink_to(files[i].resolve())
    return place


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="model.onnx, calib/, eval/ in each")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 5, 6, 8))
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument(
        "--settings", action="append", help="only this row of the table", default=[]
    )
    parser.add_argument("--samples", type=int, default=32, help="calibration samples")
    parser.add_argument("--eval", type=int, default=64, help="samples for the SQNR, at most")
    parser.add_argument("--threads", type=int, default=1, help="to observe and to evaluate with")
    parser.add_argument("--name", default="weight_only", help="results go to results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
