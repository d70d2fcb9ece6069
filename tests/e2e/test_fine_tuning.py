"""Networks that are trained after they were quantized: better outputs, the same bytes again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.cli import ptq

from ptq import QuantizeConfig, RunOptions, quantize, work
from ptq.errors import ConfigError
from ptq.finetuning import fine_tune
from ptq.qat import export_job, import_job
from ptq.train.job import Job, Result

SETTINGS = {"bits": 3, "activation_bits": 3, "fine_tune": "pact", "steps": 24, "place": ("all",)}


def options(**more):
    return RunOptions(seconds=0.01, samples=64, threads=1, **more)


def fine_tuned(digits, output, **more):
    config = QuantizeConfig(**{**SETTINGS, **more})
    return quantize(digits.model, str(digits.calibration), config, options=options(output=output))


@pytest.fixture(scope="module")
def exported(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "job"
    data = ["--calib-data", digits.calibration, "--samples", 64]
    done = ptq("qat", "export", digits.model, *data, "--bits", "W3A3", "-o", folder)
    assert done.code == 0, done.err
    assert f"ptq qat run {folder}" in done.out
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "job")


def test_training_makes_outputs_better_and_the_same_bytes_again(digits, tmp_path):
    first = fine_tuned(digits, tmp_path / "a.onnx")
    again = fine_tuned(digits, tmp_path / "b.onnx")
    (step,) = first.report.refinements
    assert step.step == "fine-tuning"
    assert step.kept
    assert step.after_db > step.before_db + 1.0
    assert first.output.read_bytes() == again.output.read_bytes()


@pytest.mark.parametrize(
    "phases", ["two-stage", pytest.param("progressive", marks=pytest.mark.slow)]
)
def test_each_phase_goes_on_from_the_one_before(digits, tmp_path, monkeypatch, phases):
    began, ended = [], []

    def spied(trainable, *rest):
        began.append({n: start.array for n, start in trainable.network.starts.items()})
        found = fine_tune(trainable, *rest)
        ended.append(found.latent)
        return found

    monkeypatch.setattr(work, "fine_tune", spied)
    result = fine_tuned(digits, tmp_path / "a.onnx", steps=8, phases=phases)
    assert len(result.report.refinements) == 1
    assert len(began) == len(ended) == {"two-stage": 2, "progressive": 3}[phases]
    for before, after in zip(ended, began[1:], strict=False):
        assert all(np.array_equal(before[name], after[name]) for name in after)
    assert any(not np.array_equal(began[0][name], began[1][name]) for name in began[0])


def test_a_job_is_trained_and_imported(digits, folder, tmp_path):
    output, report = tmp_path / "out.onnx", tmp_path / "report.json"
    done = ptq("qat", "run", folder, "--data", digits.calibration, "--steps", 24, "--threads", 1)
    assert done.code == 0, done.err
    done = ptq("qat", "import", folder, "-o", output, "--json", report)
    assert done.code == 0, done.err
    assert "fine-tuning 13 weights" in done.err
    (step,) = json.loads(report.read_bytes())["refinements"]
    assert step["kept"]
    assert step["after_db"] > step["before_db"]
    assert output.is_file()


def test_training_on_labels_is_judged_by_right_answers(digits, tmp_path):
    folder = tmp_path / "job"
    config = QuantizeConfig(bits=3, activation_bits=3, fine_tune="lsq")
    data, labels = str(digits.evaluation), digits.evaluation
    export_job(digits.model, data, folder, config, labels=labels, options=options())
    done = ptq("qat", "run", folder, "--data", data, "--labels", labels, "--steps", 4)
    assert done.code == 0, done.err
    result = import_job(folder, tmp_path / "out.onnx", options=options())
    (step,) = result.report.refinements
    assert step.top1 is not None
    assert step.before_db is None


def test_what_training_made_worse_is_not_taken(folder, tmp_path):
    with np.load(folder / "params.npz") as arrays:
        spoilt = {name: array * np.float32(0.5) for name, array in arrays.items()}
    job = Job.open(folder)
    job.write(spoilt, Result(manifest=job.digest))
    result = import_job(folder, tmp_path / "out.onnx", options=options())
    (step,) = result.report.refinements
    assert not step.kept
    assert any("not done" in notice for notice in result.report.notices)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounding": "gptq"}, "--rounding gptq"),
        ({"calib": "lapq"}, "--calib lapq"),
        ({"smooth": True}, "--smooth"),
        ({"fine_tune": ""}, "--method"),
        ({"fine_tune": "pacct"}, "pact"),
    ],
)
def test_what_a_job_cannot_have_is_refused(digits, tmp_path, changes, message):
    config = QuantizeConfig(**{"fine_tune": "pact", **changes})
    with pytest.raises(ConfigError, match=message):
        export_job(digits.model, str(digits.calibration), tmp_path / "job", config)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_no_job_is_left_alone(digits, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    config = QuantizeConfig(fine_tune="pact")
    with pytest.raises(ConfigError, match="exists"):
        export_job(
            digits.model, str(digits.calibration), folder, config, options=options(force=True)
        )
    assert (folder / "mine.txt").read_text() == "keep"


def test_an_untrained_job_is_refused(folder, tmp_path):
    done = ptq("qat", "import", folder, "-o", tmp_path / "out.onnx")
    assert "ptq qat run" in done.message
    assert not (tmp_path / "out.onnx").exists()
