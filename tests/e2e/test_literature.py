"""What makes the systems of the literature makes a model."""

import shlex

import numpy as np
import pytest
from support.cli import ptq
from support.models import write

from ptq.report.literature import systems

USES = sorted({use for s in systems() for use in s.use if not use.startswith("ptq ")})

#: Two dense layers, for weights alone; the small network is of convolutions.
DENSE = """
dense (float[N, 64] x) => (float[N, 48] y) <float[64, 96] w1, float[96, 48] w2>
{
    h = MatMul (x, w1)
    r = Relu (h)
    y = MatMul (r, w2)
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_each_runs_and_writes_a_model(use, digits, tmp_path):
    words = shlex.split(use)
    model, data = digits.model, digits.calibration
    if "weight-only" in words:
        model, data = write(tmp_path / "dense.onnx", DENSE), tmp_path / "data.npz"
        x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
        np.savez(data, x=x)
    if "--fine-tune" in words:
        words += ["--steps", "2"]
    needless = {"--data-free", "dynamic"} & {*words} or (
        "weight-only" in words and not {"--rounding", "--awq"} & {*words}
    )
    if not needless:
        words += ["--calib-data", str(data), "--samples", "32"]
    output = tmp_path / "q.onnx"
    done = ptq("quantize", model, *words, "--place", "all", "--seconds", "0.05", "--allow-larger",
               "--no-recipe", "-o", output)  # fmt: skip
    assert done.code == 0, done.err
    assert output.exists()
