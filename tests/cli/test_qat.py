"""`ptq qat run` trains a job, says how it went, and goes on after Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.cli import command, environment, ptq
from support.jobs import line_job, rows

from ptq.train.job import read_trained


@pytest.fixture
def job(tmp_path):
    np.savez(tmp_path / "x.npz", x=rows(30))
    return line_job(tmp_path / "job")


def run(job, *more):
    data = job.folder.parent / "x.npz"
    return ptq("qat", "run", job.folder, "--data", data, "--lr", 0.05, "--threads", 1, *more)


def test_it_trains_and_tells_what_is_kept(job):
    done = run(job, "--epochs", 30)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["step", "held-out", "loss"]
    assert lines[1].endswith("before")
    assert sum(line.endswith("kept") for line in lines) == 1
    found = read_trained(job).result
    assert found.best.loss < found.before.loss
    assert not job.path("params.ckpt.npz").exists()


def test_json_is_the_result(job):
    done = run(job, "--steps", 5, "--json")
    assert json.loads(done.out) == json.loads(job.path("result.json").read_text())


def test_labels_of_what_has_no_classes_are_refused(tmp_path):
    held = {"0/x": rows(4), "0/labels": np.zeros(4, np.int64)}
    job = line_job(tmp_path / "job", held_out=held)
    np.savez(tmp_path / "x.npz", x=rows(30))
    done = run(job, "--steps", 5)
    assert "one row of class scores" in done.message


def test_labels_that_nothing_reads_are_noted(job, tmp_path):
    np.save(tmp_path / "y.npy", np.arange(30))
    done = run(job, "--steps", 5, "--labels", tmp_path / "y.npy")
    assert "--labels is not used" in done.err


def test_a_loss_that_is_no_number_fails_after_writing_the_best(job):
    done = run(job, "--optimizer", "sgd", "--lr", 1e30, "--eval-every", 1)
    assert done.code == 1
    assert "lower --lr" in done.message
    assert read_trained(job).result.stopped == "not-finite"


def test_steps_and_epochs_exclude_each_other(job):
    done = run(job, "--steps", 5, "--epochs", 1)
    assert (done.code, "exclude each other" in done.message) == (2, True)


def test_options_of_the_built_in_trainer_are_not_for_others(job):
    done = run(job, "--trainer", "python train.py {dir}")
    assert (done.code, "--lr is for the built-in trainer" in done.message) == (2, True)


def test_another_trainer_is_judged(job, tmp_path):
    (tmp_path / "t.py").write_text(
        "import sys; from ptq.train.job import Job, Result\n"
        "job = Job.open(sys.argv[1])\n"
        "job.write({**job.parameters(), 'w': job.parameters()['w'] + 1},"
        " Result(manifest=job.digest, steps=9))\n"
    )
    data = tmp_path / "x.npz"
    trainer = f"{sys.executable} {tmp_path / 't.py'} {{dir}}"
    done = ptq("qat", "run", job.folder, "--data", data, "--trainer", trainer)
    assert done.code == 0, done.err
    found = read_trained(job).result
    assert (found.before.step, found.best.step) == (0, 9)
    assert "kept" in done.out


def test_a_folder_without_a_job_is_a_usage_error(tmp_path):
    done = ptq("qat", "run", tmp_path, "--data", "random")
    assert (done.code, "ptq qat export" in done.message) == (2, True)


def test_after_ctrl_c_the_same_command_goes_on(job, tmp_path):
    line = ["qat", "run", job.folder, "--data", tmp_path / "x.npz", "--steps", 1_000_000]
    line += ["--checkpoint-every", 20, "--eval-every", 100_000, "--patience", 0, "--threads", 1]
    process = subprocess.Popen(
        command(*line), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    checkpoint = job.path("params.ckpt.npz")
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted; the same command goes on where it was"
    assert checkpoint.exists()
    assert {p.suffix for p in job.folder.iterdir()} == {".onnx", ".npz", ".json"}
