"""`ptq.check` from Python: open data, outputs that cannot be compared, and what is written."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.models import parse, write

import ptq
from ptq.data import InputSpec, open_dataset
from ptq.errors import ConfigError, PtqError, VerificationError

FLOAT = "g (float[N,4] x) => (float[N,4] y) { y = Mul (x, x) }"
OTHER = """
g (float[N,4] x) => (float[N,4] y) <float[1] some = {0.9}> { z = Mul (x, x)  y = Mul (z, some) }
"""
#: As many values come out as are above a limit, as boxes come out of a detector.
KEEPS = """
g (float[8] x) => (float[K] y) <float[1] least = {LEAST}>
{ above = Greater (x, least)  y = Compress (x, above) }
"""


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two models, of which one gives nine tenths of the other, and data; the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("f.onnx", FLOAT), ("q.onnx", OTHER)):
        write(tmp_path / name, text)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((12, 4)).astype(np.float32))
    return "f.onnx", "q.onnx"


def options(**fields):
    return ptq.CheckOptions(threads=1, **fields)


def test_a_known_error_has_the_figures_of_the_formulas(pair):
    found = ptq.check(*pair, "d.npz", options(min_sqnr=19.9, min_cosine=0.9999))
    # a tenth of the signal is missing: 20 dB, and the direction is the same
    assert found.figure("sqnr").value == pytest.approx(20, abs=1e-4)
    assert found.figure("cosine").value == pytest.approx(1, abs=1e-6)
    assert found.passed
    assert not ptq.check(*pair, "d.npz", options(min_sqnr=20.1)).passed


def test_data_may_be_open_already(pair):
    data = open_dataset("d.npz", [InputSpec("x", np.dtype(np.float32), ("N", 4))], samples=5)
    found = ptq.check(*pair, data, options(min_sqnr=500.0))
    assert (found.samples, found.data) == (5, "d.npz")
    assert any("--data d.npz" in line for line in found.next_commands)


def test_a_model_is_its_own_equal(pair):
    found = ptq.check("f.onnx", "f.onnx", "d.npz", options(min_sqnr=1000.0))
    assert found.passed
    assert found.figure("sqnr").value is None


def test_a_drop_without_a_task_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "f.onnx", "g (float[4] x) => (float[4] y) { y = Neg (x) }")
    (tmp_path / "d").mkdir()
    np.savez(tmp_path / "d" / "0.npz", x=np.ones(4, np.float32))
    with pytest.raises(ConfigError, match=r"--max-drop needs a task figure.*--labels or --metric"):
        ptq.check("f.onnx", "f.onnx", "d", options(max_drop="1%"))
    with pytest.raises(ConfigError, match="--min-agreement holds a figure that these outputs do"):
        ptq.check("f.onnx", "f.onnx", "d", options(min_agreement="99%"))


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """Two models that keep what is above 0, and above 1; a metric that counts; the folder."""
    monkeypatch.chdir(tmp_path)
    for name, least in (("f.onnx", "0.0"), ("q.onnx", "1.0")):
        write(tmp_path / name, KEEPS.replace("LEAST", least))
    (tmp_path / "d").mkdir()
    for i in range(3):
        x = np.linspace(-2, 2 + i, 8, dtype=np.float32)
        np.savez(tmp_path / "d" / f"{i}.npz", x=x)
    (tmp_path / "counts_of_check.py").write_text(
        "def count(outputs, target):\n    return float(outputs['y'].size)\n"
    )
    return "f.onnx", "q.onnx"


def test_outputs_of_other_shapes_leave_the_task_and_a_notice(keeping):
    found = ptq.check(*keeping, "d", options(metrics=("counts_of_check:count",), max_drop=100.0))
    assert [held.figure for held in found.held] == ["counts_of_check:count"]
    assert not {"sqnr", "cosine"} & {figure.name for figure in found.figures}
    [notice] = found.notices
    assert notice.startswith("sqnr, cosine not measured: output 'y' has shape")


def test_outputs_of_other_shapes_are_an_error_where_their_difference_is_held(keeping):
    with pytest.raises(VerificationError, match="output 'y' has shape"):
        ptq.check(
            *keeping,
            "d",
            options(metrics=("counts_of_check:count",), max_drop=100.0, min_sqnr=10.0),
        )


def test_a_metric_of_ones_own_is_kept_in_the_baseline(keeping):
    given = {"metrics": ("counts_of_check:count",), "max_drop": 100.0}
    ptq.check(*keeping, "d", options(**given, baseline=Path("b.json"), update_baseline=True))
    entry = json.loads(Path("b.json").read_bytes())["models"]["q.onnx"]
    assert entry["figures"]["counts_of_check:count"] > 0


def test_external_weights_count_as_size(pair):
    weights = np.zeros((4, 4096), np.float32)
    text = "g (float[N,4] x) => (float[N,4096] y) <float[4,4096] w> { y = MatMul (x, w) }"
    model = parse(text, {"w": weights})
    onnx.save(model, "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    found = ptq.check("big.onnx", "big.onnx", "d.npz", options(max_size_ratio="100%"))
    assert found.figure("size_bytes").value > weights.nbytes


def test_every_file_is_written_or_none(pair, tmp_path):
    with pytest.raises(ConfigError, match="are to be one file"):
        ptq.check(
            *pair, "d.npz", options(min_sqnr=1.0, junit=tmp_path / "x", report=tmp_path / "x")
        )
    assert not (tmp_path / "x").exists()


def test_a_model_for_another_runtime_is_run_as_written_and_its_kernels_are_not_measured(
    digits, tmp_path
):
    output = tmp_path / "q.onnx"
    config = ptq.QuantizeConfig(target="qnn", place=("all",))
    ptq.quantize(
        digits.model, str(digits.calibration), config, options=ptq.RunOptions(output=output)
    )
    data = str(digits.evaluation)
    found = ptq.check(digits.model, output, data, options(min_sqnr=20.0, samples=64))
    assert found.passed
    assert "integer_kernels" not in {figure.name for figure in found.figures}
    # the same as of the session without optimizations
    arrays = np.load(digits.evaluation)["input"]
    picked = arrays[[i * len(arrays) // 64 for i in range(64)]]
    how = ort.SessionOptions()
    how.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    [wanted], [got] = (
        ort.InferenceSession(str(path), how, providers=["CPUExecutionProvider"]).run(
            None, {"input": picked}
        )
        for path in (digits.model, output)
    )
    sqnr_db = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())
    assert found.figure("sqnr").value == pytest.approx(sqnr_db, abs=1e-3)
    for held in ({"min_speedup": 1.0}, {"min_integer": "90%"}):
        with pytest.raises(ConfigError, match="another runtime"):
            ptq.check(digits.model, output, data, options(**held))


def test_a_check_that_cannot_be_run_is_an_error_in_junit(pair, tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.zeros((3, 5), np.float32))
    with pytest.raises(PtqError) as error:
        ptq.check(*pair, "bad.npz", options(min_sqnr=1.0, junit=tmp_path / "j.xml"))
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert (suite.get("errors"), suite.get("failures"), suite.get("tests")) == ("1", "0", "1")
    assert suite[0][0].get("message") == str(error.value)
