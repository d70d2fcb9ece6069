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

from ptq.run import runs_here
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


@pytest.fixture(scope="session", autouse=True)
def _measure_little():
    """Time for an instant only, and place everything that can be integer: timings are noise.

    For the whole session, so that it holds for what modules share, too: pytest makes that before
    any fixture of a single test. What a conversion costs on this machine is measured once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptq.run.runs_here", lambda config: False)
        patch.setattr("ptq.options.SECONDS", 0.02)
        patch.setattr("ptq.placing.measure_conversions", cache(measure_conversions))
        patch.setenv("PTQ_QUANTIZE_PLACE", "all")  # for commands in processes of their own
        patch.setenv("PTQ_QUANTIZE_SECONDS", "0.02")
        patch.setenv("PTQ_CACHE", "")
        yield


@pytest.fixture(autouse=True)
def _place_by_cost(request, monkeypatch):
    """Let tests marked ``places`` place by cost, as users' runs do."""
    if "places" in request.keywords:
        monkeypatch.setattr("ptq.run.runs_here", runs_here)
        monkeypatch.delenv("PTQ_QUANTIZE_PLACE")


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
