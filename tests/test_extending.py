"""The examples of docs/extending.md do what it says, pasted as they are."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import wave
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from support.documents import ROOT, blocks, files
from support.faking import Faking, activation_start
from support.integer import fuse
from support.models import check_rewrite, load, op_types

import ptq
import ptq.data.readers
import ptq.graph.emit_integer.rules
import ptq.train.fakequant
from ptq.data import open_dataset
from ptq.data.feeds import InputSpec
from ptq.errors import DataError
from ptq.graph.emit_integer import registry

PAGE = ROOT / "docs" / "extending.md"
MODELS = ROOT / "tests" / "models"
EXAMPLES = files(PAGE)

#: The examples that live in a package of their own.
OWN = ("ptq/calib", "ptq/weights", "ptq/rounders", "ptq/metrics", "mymetrics")

METADATA = "Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n"


def paste(path, package, folder, monkeypatch):
    """Put an example where it belongs, as if its folder were that of the package; import it."""
    name = Path(path).name
    (folder / name).write_text(EXAMPLES[path], encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    module = f"{package.__name__}.{Path(name).stem}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    return module


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that is on the path like an installed distribution: the methods' own package."""
    folder = tmp_path_factory.mktemp("site")
    for path, text in EXAMPLES.items():
        if path.startswith(OWN):
            (folder / Path(path).name).write_text(text, encoding="utf-8")
    info = folder / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points(), encoding="utf-8")
    return folder


def entry_points():
    """Return the entry points of the example's pyproject.toml, as an installer writes them."""
    import tomllib

    groups = tomllib.loads(EXAMPLES["pyproject.toml"])["project"]["entry-points"]
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    return "\n".join(lines) + "\n"


def ptq_in(folder, *arguments):
    """Run the command line with a folder on Python's path; return what it prints."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "ptq", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, "PTQ_CACHE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def quantized(installed, tmp_path_factory):
    """The digits, quantized by the calibration method and the weight quantizer of the page."""
    output = tmp_path_factory.mktemp("out") / "digits.int8.onnx"
    data = MODELS / "digits_calib.npz"
    methods = ["--calib", "meanstd:k=8", "--weight-method", "sigma:k=6"]
    given = [MODELS / "digits_cnn.onnx", "--calib-data", data, "-o", output, "--place", "all"]
    ptq_in(installed, "quantize", *given, *methods, "--seconds", "0.05", "--eval-data", data)
    return output


def test_the_methods_are_listed(installed):
    listed = ptq_in(installed, "methods")
    assert "meanstd     Cover ``k`` standard deviations on each side of the mean." in listed
    assert "sigma       Cover ``k`` standard deviations of each channel's weights" in listed


def test_a_codebook_and_a_rounding_method_quantize(installed, tmp_path):
    output = tmp_path / "digits.int4.onnx"
    data = MODELS / "digits_calib.npz"
    given = [MODELS / "digits_cnn.onnx", "--calib-data", data, "-o", output, "--place", "all"]
    methods = ["--bits", 4, "--weight-method", "cubes", "--rounding", "fitted"]
    said = ptq_in(
        installed, "quantize", *given, *methods, "--samples", 32, "--seconds", "0.05",
        "--json", tmp_path / "report.json",
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    [step] = report["refinements"]
    assert (step["step"], step["kept"]) == ("fitted", True)
    assert "at 4" in said


def test_the_methods_quantize(quantized):
    assert quantized.stat().st_size < (MODELS / "digits_cnn.onnx").stat().st_size


def test_the_metrics_judge(installed, quantized):
    models = [MODELS / "digits_cnn.onnx", quantized]
    data = ["--data", MODELS / "digits_eval.npz", "--samples", "100", "--threads", "1"]
    metrics = ["--metric", "mymetrics:rank_correlation", "--metric", "within:tolerance=5"]
    said = ptq_in(installed, "check", *models, *data, *metrics, "--max-drop", "0.5")
    assert {"rank_correlation", "within 5"} <= {
        line.partition("  ")[0] for line in said.split("\n")
    }


def test_the_range_is_that_of_the_formula(tmp_path, monkeypatch):
    import ptq.calib
    from ptq.numerics.qtype import QType
    from ptq.stats.base import TensorStats

    module = paste("ptq/calib/meanstd.py", ptq.calib, tmp_path, monkeypatch)
    x = np.random.default_rng(0).normal(1, 2, 10000).astype(np.float32)
    solver = importlib.import_module(module).MeanStdSolver(k=2.0)
    found = solver.solve(TensorStats.of(x), QType(8, signed=False), symmetric=False)
    # the histogram knows values to within a bin: 1/4096 of the largest
    assert found.lo == pytest.approx(x.mean() - 2 * x.std(), abs=0.01)
    assert found.hi == pytest.approx(x.mean() + 2 * x.std(), abs=0.01)


def test_the_reader_gives_recordings(tmp_path, monkeypatch):
    paste("ptq/data/readers/wav.py", ptq.data.readers, tmp_path, monkeypatch)
    folder = tmp_path / "recordings"
    folder.mkdir()
    codes = np.array([0, 16384, -32768], "<i2")
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(codes.tobytes())
    data = open_dataset(folder, [InputSpec("audio", np.dtype(np.float32), (1, None))])
    [feed] = list(data)
    np.testing.assert_array_equal(feed["audio"], [[0, 0.5, -1]])
    with wave.open(str(folder / "b.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(codes[:2].tobytes())
    with pytest.raises(DataError, match="not mono"):
        list(open_dataset(folder, [InputSpec("audio", np.dtype(np.float32), (1, None))]))


def test_the_target_is_found(tmp_path, monkeypatch):
    for file in (ROOT / "ptq" / "targets").glob("*.toml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "board.toml").write_text(EXAMPLES["ptq/targets/board.toml"], encoding="utf-8")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    found = ptq.inspect(MODELS / "digits_cnn.onnx", ptq.QuantizeConfig(target="board"))
    assert any("Conv" in line for line in map(str, found.nodes))
    from ptq.targets import load_target

    board, base = load_target("board"), load_target("generic-qdq")
    assert not board.ops["Conv"].per_channel
    assert base.ops["Conv"].per_channel
    assert board.ops.keys() == base.ops.keys()


def test_the_pass_keeps_its_promises():
    space: dict = {"__name__": "add_negative"}
    exec(EXAMPLES["ptq/graph/passes/add_negative.py"], space)
    model = load("g (float[2, 3] x) => (float[2, 3] y) <float[3] c> { y = Sub (x, c) }")
    check_rewrite(space["AddNegative"](), model, count=1)
    assert op_types(model) == ["Add"]


def test_the_rule_fuses(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_RULES", registry._RULES.copy())
    package = ptq.graph.emit_integer.rules
    paste("ptq/graph/emit_integer/rules/arg.py", package, tmp_path, monkeypatch)
    registry.rules.cache_clear()
    try:
        pair = fuse(
            """g (uint8[N, 9] x) => (int64[N, 1] y) {
                f = DequantizeLinear (x, s, z) y = ArgMax <axis = 1> (f) }""",
            {"s": np.float32(0.1), "z": np.uint8(128)},
        )
    finally:
        registry.rules.cache_clear()
    assert pair.op_types == ["ArgMax"]
    x = np.random.default_rng(0).integers(0, 256, (50, 9), np.uint8)
    for simulated, found in zip(*pair.outputs({"x": x}), strict=True):
        np.testing.assert_array_equal(simulated, found)


def test_every_example_of_a_file_is_tested():
    assert set(EXAMPLES) == {
        "ptq/calib/meanstd.py",
        "ptq/weights/sigma.py",
        "ptq/weights/cubes.py",
        "ptq/rounders/fitted.py",
        "mymetrics.py",
        "ptq/metrics/within.py",
        "ptq/train/fakequant/pow2.py",
        "ptq/data/readers/wav.py",
        "ptq/targets/board.toml",
        "ptq/graph/passes/add_negative.py",
        "ptq/graph/emit_integer/rules/arg.py",
        "pyproject.toml",
    }
    assert len(EXAMPLES) == sum(b.language in ("python", "toml") for b in blocks(PAGE))


def test_the_training_method_has_steps_that_are_powers_of_two(tmp_path, monkeypatch):
    path = "ptq/train/fakequant/pow2.py"
    method = importlib.import_module(
        paste(path, ptq.train.fakequant, tmp_path, monkeypatch)
    ).PowersOfTwo()
    x = np.linspace(-0.6, 1.7, 40, dtype=np.float32)
    faking = Faking(method, activation_start(4, 1.1, -0.4), x)
    steps, step = x / 0.125, faking.run(x)["scale"]
    codes = np.clip(np.rint(steps), -4, 11)
    assert step == 0.125  # next to 0.1
    np.testing.assert_array_equal(faking.run(x)["value"], step * codes)
    inside = (steps > -4) & (steps < 11)
    wanted = step * np.log(2) * np.where(inside, codes - steps, codes)
    np.testing.assert_allclose(faking.by_element("exponent", x), wanted, rtol=1e-4, atol=1e-7)
