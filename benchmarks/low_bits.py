"""Compare ways to have fewer than 8 bits a weight on int8 kernels: SQNR, size and speed.

    python benchmarks/low_bits.py FOLDER ... [--samples 32] [--eval 64] [--only NAME ...]

Every FOLDER holds ``model.onnx`` and two folders of .npz files, ``calib`` and ``eval``. Everything
that the target runs is in integers (``--place all``). Figures are of data that is not calibrated
on. The table goes to stdout as markdown, all figures to results/low_bits.json, model by model.
"""

import argparse
import sys
from pathlib import Path

from common import NOT_THERE, sqnr_cell, table, workplace, write_results

import ptq
from ptq.data.dataset import evenly_spaced
from ptq.errors import PtqError
from ptq.options import RunOptions, WidthBudget

_FOUR = {"bits": 4, "weights_symmetric": False}
_FULL = {"rounding": "gptq", "bias_correct": True}
_MIXED = {"weights_symmetric": False, **_FULL}

#: Settings, and the mean width where layers have widths of their own.
WAYS = {
    "W8A8, to nearest, symmetric": ({}, None),
    "W4A8, to nearest, symmetric, minmax": ({"bits": 4, "weight_method": "minmax"}, None),
    "W4A8, to nearest, asymmetric, minmax": ({**_FOUR, "weight_method": "minmax"}, None),
    "W4A8, to nearest, asymmetric, mse": (_FOUR, None),
    "W4A8, mse, bias-correct": ({**_FOUR, "bias_correct": True}, None),
    "W4A8, gptq": ({**_FOUR, "rounding": "gptq"}, None),
    "W4A8, gptq, bias-correct": ({**_FOUR, **_FULL}, None),
    "mixed, 4.5 bits, gptq, bias-correct": (_MIXED, 4.5),
    "mixed, 5 bits, gptq, bias-correct": (_MIXED, 5.0),
    "mixed, 6 bits, gptq, bias-correct": (_MIXED, 6.0),
}


def main() -> None:
    args = _arguments()
    found: dict[str, dict] = {}
    for folder in args.folders:
        found[folder.name] = {}
        for name in args.only or WAYS:
            print(folder.name, name, file=sys.stderr)
            found[folder.name][name] = measure(folder, *WAYS[name], args)
            settings = {"samples": args.samples, "eval": args.eval}
            write_results(args.name, settings, {"models": found})
    names = list(found)
    rows = [(way, *(_cell(found[n].get(way)) for n in names)) for way in args.only or WAYS]
    print("dB on held-out data, size in MB, speed beside float\n")
    print(table(("", *names), rows))


def measure(folder: Path, settings: dict, mean: float | None, args: argparse.Namespace) -> dict:
    """Quantize one model in one way; what cannot be done says why."""
    with workplace() as place:
        held_out = place / "eval"
        held_out.mkdir()
        files = sorted((folder / "eval").iterdir())
        for i in evenly_spaced(len(files), args.eval):
            (held_out / files[i].name).symlink_to(files[i].resolve())
        options = RunOptions(
            output=place / "q.onnx",
            samples=args.samples,
            evaluation=str(held_out),
            seconds=args.seconds,
            widths=None if mean is None else WidthBudget(mean_bits=mean),
        )
        config = ptq.QuantizeConfig(place=("all",), allow_larger=True, **settings)
        try:
            report = ptq.quantize(
                folder / "model.onnx", str(folder / "calib"), config, options=options
            ).report
        except PtqError as error:
            return {"error": str(error)}
    assert report.accuracy and report.latency and report.output
    return {
        "sqnr_db": report.accuracy.sqnr_db,
        "size_mb": report.output.size_bytes / 1e6,
        "speedup": report.latency.speedup,
        "seconds": sum(report.stages_s.values()),
        "weight_bits": report.weight_bits,
    }


def _cell(found: dict | None) -> str:
    if found is None or "error" in found:
        return NOT_THERE
    return f"{sqnr_cell(found)} dB, {found['size_mb']:.2f} MB, {found['speedup']:.2f}x"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--eval", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", nargs="*", choices=list(WAYS), metavar="WAY")
    parser.add_argument("--name", default="low_bits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
