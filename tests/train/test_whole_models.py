"""Real networks: the gradients of all their weights are those of torch in float64 (minutes)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx2fx")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the zoo's reading of files, and of torch's tracing
]

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

#: How many weights are trained, and how far a gradient may be off, as a share of its largest
#: number. All is computed in float32; torch itself is off by 5e-3 in float32 where a number lies
#: just beside the kink of an activation.
MODELS = {
    "fm_mbv2": (24, 1e-4),
    "effnet_lite0": (50, 1e-4),
    "ppocr_rec": (47, 1e-3),
    "ppocr_cls": (54, 1e-3),
    "minilm_l6": (36, 1e-4),
    "layout_picodet": (102, 1e-2),
    "esrgan_slim_x2": (12, 1e-4),
    "basic_pitch": (9, 1e-2),  # its sigmoids saturate, where that of onnxruntime is inexact
    "nsnet2_gru": (8, 1e-4),
}

#: onnx2fx makes what they are, GRUs, of float32 alone.
SINGLE = {"nsnet2_gru"}


@pytest.fixture
def training_graphs(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training_graphs

    return training_graphs


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_torch(zoo, training_graphs, name):
    count, tolerance = MODELS[name]
    entry = zoo[name]
    step = training_graphs.training_step(Path(entry.onnx), entry.calib(), 2, timed=False)
    assert step.frozen == ()
    assert len(step.weights) == count
    found = step.runner()()
    wanted = training_graphs.torch_runner(step, double=name not in SINGLE)()
    assert found[0] == pytest.approx(wanted[0], rel=1e-4)
    assert training_graphs.worst_difference(found[1:], wanted[1:]) < tolerance
