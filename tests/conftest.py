"""Hypothesis profiles, and the models and data that tests share."""

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Before numpy is loaded. The matrices here are small, and threads that wait for one another on
# cores that another worker has cost more than all the sums: rounding by GPTQ took 8 s, not 3.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from ptq.runtime.conversions import measure_conversions

# No deadline: on a shared machine the first call of a function is often slow.
# Derandomized: a test that passed yesterday passes today.
settings.register_profile(
    "default", deadline=None, derandomize=True, max_examples=60, database=None
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"


@dataclass(frozen=True)
class Digits:
    """The small CNN of tests/models and its data, as files (tests/models/README.md).

    Attributes:
        model: float32 ``input`` (N, 1, 8, 8) to ``logits`` (N, 10).
        calibration: .npz with ``input`` (128, 1, 8, 8), images the model was trained on.
        evaluation: .npz with ``input`` (597, 1, 8, 8), held out, and ``labels`` (597,).
    """

    model: Path = MODELS / "digits_cnn.onnx"
    calibration: Path = MODELS / "digits_calib.npz"
    evaluation: Path = MODELS / "digits_eval.npz"

    def images(self) -> np.ndarray:
        with np.load(self.evaluation) as arrays:
            return arrays["input"]

    def labels(self) -> np.ndarray:
        with np.load(self.evaluation) as arrays:
            return arrays["labels"]


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits()


#: The machine stays the same: what converting costs here is measured once, and not in every run.
_conversions = cache(measure_conversions)


@pytest.fixture(autouse=True)
def _measure_little(request, monkeypatch):
    """Time for an instant only, and place everything that can be integer: timings are noise.

    Tests marked ``places`` place by cost, as users' runs do.
    """
    if "places" not in request.keywords:
        monkeypatch.setattr("ptq.run.runs_here", lambda config: False)
        monkeypatch.setenv("PTQ_QUANTIZE_PLACE", "all")  # for commands in processes of their own
    monkeypatch.setenv("PTQ_CACHE", "")
    monkeypatch.setenv("PTQ_QUANTIZE_SECONDS", "0.02")
    monkeypatch.setattr("ptq.options.SECONDS", 0.02)
    monkeypatch.setattr("ptq.placing.measure_conversions", _conversions)


@pytest.fixture(scope="session")
def zoo():
    """Real models with real data, by name; tests that want them are skipped where they are not.

    They are looked for in the folder PTQ_ZOO names, else in ../shared/zoo beside the checkout.
    """
    source = Path(os.environ.get("PTQ_ZOO", ROOT.parent / "shared" / "zoo")) / "zoo.py"
    if not source.is_file():
        pytest.skip(f"no model zoo at {source.parent}; set PTQ_ZOO to its folder")
    spec = importlib.util.spec_from_file_location("ptq_zoo", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ZOO
