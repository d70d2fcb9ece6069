"""Compare the calibration methods: SQNR on held-out data, for each method and each model.

    python benchmarks/calibration.py FOLDER ... [--samples 32] [--eval 64] [--name calibration]

Every FOLDER holds ``model.onnx`` and two folders of .npz files, ``calib`` and ``eval``. Each model
is observed once with so many samples, and quantized with every method from the same statistics,
everything that the target runs in integers (``--place all``). Tables go to stdout as markdown, all
figures to results/NAME.json.
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from common import sqnr_cell, table, workplace, write_results

import ptq
from ptq.data.dataset import evenly_spaced

#: What is asked of the activations, with everything else as it is by default.
METHODS = {
    "minmax": {"calib": "minmax"},
    "percentile": {"calib": "percentile"},
    "percentile:coverage=99.9": {"calib": "percentile:coverage=99.9"},
    "kl": {"calib": "kl"},
    "mse": {"calib": "mse"},
    "aciq": {"calib": "aciq"},
    "auto": {"calib": "auto"},
    "ema": {"calib": "ema"},
    "scale": {"calib": "scale"},
    "qcode": {"calib": "qcode"},
}
#: Other settings, with the default method.
SETTINGS = {
    "the default": {},
    "--symmetric": {"symmetric": True},
    "--weights per-tensor": {"weights": "per-tensor"},
    "--asymmetric-weights": {"weights_symmetric": False},
    "--weight-method mse": {"weight_method": "mse"},
    "--weight-method percentile": {"weight_method": "percentile"},
}
#: Numbers of samples, with two methods.
COUNTS = (1, 4, 8, 32, 128)
COUNTED = ("minmax", "kl")


def main() -> None:
    args = _arguments()
    found: dict[str, dict] = {}
    for folder in args.folders:
        print(folder.name, file=sys.stderr)
        found[folder.name] = measure(folder, args)
        write_results(args.name, {"samples": args.samples, "eval": args.eval}, {"models": found})
    names = list(found)
    methods = f"calibrated on {args.samples} samples"
    show(f"SQNR in dB on held-out data, {methods}: the method", METHODS, "methods", found)
    show(f"SQNR in dB on held-out data, {methods}: other settings", SETTINGS, "settings", found)
    counted = [f"{m}, {n}" for m, n in itertools.product(COUNTED, COUNTS)]
    show("SQNR in dB on held-out data: the number of samples", counted, "samples", found)
    for name in names:
        for group in ("methods", "settings", "samples"):
            for label, result in found[name][group].items():
                if "error" in result:
                    print(f"\n{name}, {label}: {result['error']}")


def show(title: str, labels, group: str, found: dict) -> None:
    rows = [[f"`{x}`", *(sqnr_cell(r[group].get(x, {})) for r in found.values())] for x in labels]
    print(f"\n### {title}\n")
    print(table(("", *found), rows))


def measure(folder: Path, args: argparse.Namespace) -> dict:
    with workplace() as place:
        heldout = _some(folder / "eval", args.eval, place / "eval")
        job = Job(folder, heldout, place, args.threads)
        return {
            "methods": {k: job.sqnr(args.samples, c) for k, c in METHODS.items()},
            "settings": {k: job.sqnr(args.samples, c) for k, c in SETTINGS.items()},
            "samples": {
                f"{method}, {count}": job.sqnr(count, {"calib": method})
                for method, count in itertools.product(COUNTED, COUNTS)
                if count <= len(list((folder / "calib").iterdir()))
            },
        }


class Job:
    """Quantizes one model with many settings, and observes it once for each number of samples."""

    def __init__(self, folder: Path, heldout: Path, place: Path, threads: int) -> None:
        self.model, self.data = folder / "model.onnx", folder / "calib"
        self.place, self.threads = place, threads
        self.feeds = [dict(np.load(file)) for file in sorted(heldout.iterdir())]
        self.wanted = self._outputs(self.model)
        self.known: dict[str, dict] = {}

    def _outputs(self, model: Path) -> list[list[np.ndarray]]:
        """Return the floating-point outputs for every held-out feed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found = (session.run(None, feed) for feed in self.feeds)
        return [[x.astype(np.float64) for x in some if x.dtype.kind == "f"] for some in found]

    def sqnr(self, samples: int, changes: dict) -> dict:
        key = repr((samples, {"calib": "kl"} | changes))
        if key not in self.known:
            self.known[key] = self._sqnr(samples, changes)
            print(f"  {samples} samples {changes}: {self.known[key]}", file=sys.stderr)
        return self.known[key]

    def _sqnr(self, samples: int, changes: dict) -> dict:
        config = ptq.QuantizeConfig(place=("all",), allow_larger=True, **changes)
        stats = self.place / f"stats{samples}.npz"
        out = self.place / "out.onnx"
        # without data there is no proof, which would measure speed as well; auto runs the network
        data = str(self.data) if config.calib == "auto" else None
        options = ptq.RunOptions(
            output=out, force=True, statistics=stats, samples=samples if data else None, seconds=0.2
        )
        try:
            if not stats.exists():
                observe = ptq.RunOptions(samples=samples, threads=self.threads)
                ptq.calibrate(self.model, str(self.data), stats, options=observe)
            ptq.quantize(self.model, data, config, options=options)
            return {"sqnr_db": self._against_float(out)}
        except ptq.PtqError as error:
            return {"error": str(error)}
        finally:
            out.unlink(missing_ok=True)

    def _against_float(self, model: Path) -> float:
        """Return the SQNR over all floating-point outputs and feeds, in dB."""
        signal = noise = 0.0
        for got, wanted in zip(self._outputs(model), self.wanted, strict=True):
            for a, b in zip(got, wanted, strict=True):
                signal += float(np.sum(b**2))
                noise += float(np.sum((a - b) ** 2))
        return 10 * math.log10(signal / noise)


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
    parser.add_argument("--samples", type=int, default=32, help="calibration samples")
    parser.add_argument("--eval", type=int, default=64, help="samples for the SQNR, at most")
    parser.add_argument("--threads", type=int, default=1, help="to observe and to evaluate with")
    parser.add_argument("--name", default="calibration", help="results go to results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
