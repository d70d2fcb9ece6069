"""What `import ptq` gives, and what it costs."""

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from support.cli import ROOT, environment, run

import ptq
from ptq.options import RunOptions

#: Everything that `ptq` depends on but click.
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "scipy", "msgspec", "tqdm")

#: Runs a command line in a fresh process, then prints which of the heavy modules it imported.
PROBE = """
import sys
try:
    {statement}
except SystemExit:
    pass
heavy = {heavy}
print("imported:", *sorted(m for m in heavy if m in sys.modules))
"""


def imported(statement: str, *arguments: str) -> str:
    """Return the last line of the probe: the heavy modules that a statement imports."""
    probe = PROBE.format(statement=statement, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    return done.stdout.splitlines()[-1]


def test_importing_the_package_imports_nothing_heavy():
    assert imported("import ptq") == "imported:"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"], []], ids=str)
def test_help_and_version_import_nothing_heavy(arguments):
    assert imported("import ptq.cli; ptq.cli.main()", *arguments) == "imported:"


@pytest.mark.parametrize(
    "name", ["quantize", "calibrate", "bench", "inspect", "methods", "targets"]
)
def test_the_help_of_a_command_imports_nothing_heavy(name):
    assert imported("import ptq.cli; ptq.cli.main()", name, "--help") == "imported:"


def test_the_probe_sees_what_is_imported():
    assert imported("import numpy, ptq") == "imported: numpy"


def test_methods_are_listed_without_onnx():
    line = imported("import ptq.cli; ptq.cli.main()", "methods")
    assert not {"onnx", "onnx_ir", "onnxruntime", "tqdm"} & set(line.split())


def test_every_public_name_is_there():
    for name in ptq.__all__:
        assert getattr(ptq, name) is not None
    assert set(ptq.__all__) == {*ptq._HOMES, "__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        ptq.quantise  # noqa: B018


def test_the_package_is_typed():
    assert (resources.files("ptq") / "py.typed").is_file()


def test_the_version_is_the_one_the_command_prints():
    assert run("--version").stdout == f"ptq, version {ptq.__version__}\n"


def test_the_documented_example_runs(digits, tmp_path):
    output = tmp_path / "digits.onnx"
    result = ptq.quantize(
        digits.model,
        digits.calibration,
        ptq.QuantizeConfig(calib="mse"),
        options=RunOptions(output=output),
    )
    assert result.output == output
    assert isinstance(result.report, ptq.Report)
    assert isinstance(result.plan, ptq.Plan)
    # asked for 8 bits of a network of 13 layers: 30 dB is what minmax gives too
    assert result.report.accuracy.sqnr_db > 30
    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"input": digits.images()[:3]})
    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()


def test_paths_may_be_text(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(digits.model.read_bytes())
    result = ptq.quantize("model.onnx", str(digits.calibration))
    assert result.output == Path("model.int8.onnx")
    assert Path("model.int8.onnx").is_file()


def test_statistics_can_be_made_and_used_from_python(digits, tmp_path):
    stats = tmp_path / "stats.npz"
    found = ptq.calibrate(digits.model, digits.calibration, stats)
    assert found.header.samples == 128
    output = tmp_path / "out.onnx"
    result = ptq.quantize(digits.model, None, options=RunOptions(output=output, statistics=stats))
    assert result.report.accuracy is None, "there was no data to measure on"
    assert output.is_file()


def test_a_model_can_be_inspected_from_python(digits):
    found = ptq.inspect(digits.model)
    assert found.operators["Conv"] == 12
    assert all(node.integer for node in found.nodes)
    assert found.opset == 13


def test_errors_of_python_calls_are_ptq_errors(digits, tmp_path):
    with pytest.raises(ptq.PtqError, match="does not exist"):
        ptq.quantize(tmp_path / "nope.onnx", digits.calibration)


def test_progress_is_told_stage_by_stage(digits, tmp_path):
    told = []
    options = RunOptions(output=tmp_path / "o.onnx", samples=5, on_progress=told.append)
    result = ptq.quantize(digits.model, digits.calibration, options=options)
    seen = [(p.done, p.total) for p in told if p.stage == "observe"]
    assert seen == [(i, 5) for i in range(6)]
    assert list(dict.fromkeys(p.stage for p in told)) == list(result.report.stages_s)


def test_a_report_survives_json(digits, tmp_path):
    options = RunOptions(output=tmp_path / "o.onnx", report=tmp_path / "r.json", samples=8)
    result = ptq.quantize(digits.model, digits.calibration, options=options)
    read = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=ptq.Report, strict=True)
    assert read == result.report


def test_the_example_of_the_readme_runs(digits, tmp_path, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(digits.model.read_bytes())
    Path("calib.npz").write_bytes(digits.calibration.read_bytes())
    exec(compile(example, "README.md", "exec"), {})
    assert "sqnr_db" in capsys.readouterr().out
    assert Path("model.int8.onnx").is_file()
