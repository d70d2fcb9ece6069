"""Trainers from elsewhere get samples in neutral files, and what they write is checked."""

import json
import shlex
import sys
import time

import numpy as np
import pytest
from support.jobs import SLOPE, line_job, rows

from ptq.data.feeds import InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError, TrainingError
from ptq.progress import Stages
from ptq.train.data_folder import data_folder, read_samples
from ptq.train.external import (
    Command,
    Function,
    find_trainer,
    train_externally,
)
from ptq.train.samples import collect

SPEC = (InputSpec("x", np.dtype(np.float32), (None, None)),)

#: A trainer in another process, which knows nothing of ptq: least squares, as the model is a line.
WRITE = """
import hashlib, json, sys, pathlib
import numpy as np
folder = pathlib.Path(sys.argv[1])
index = json.loads((folder / "data/index.json").read_text())
x = np.load(folder / "data" / index["inputs"]["x"])[:, 0]
target = np.load(folder / "data" / index["targets"]["target"])[:, 0]
parameters = dict(np.load(folder / "params.npz"))
print("loading", flush=True)
print(json.dumps({"step": 1, "loss": 0.5, "steps": 2}), flush=True)
parameters["w"] = np.linalg.lstsq(x, target)[0].T.astype(np.float32)
np.savez(folder / "params.out.npz", **parameters)
digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
(folder / "result.json").write_text(json.dumps({"manifest": digest, "steps": 2}))
"""


@pytest.fixture
def job(tmp_path):
    return line_job(tmp_path / "a job; touch x")


def trained(job, trainer, *, timeout=None, watch=None):
    stages = Stages(watch or (lambda _: None))
    with data_folder(job) as folder:
        data = HeldFeeds([{"x": rows(30)}], SPEC)
        samples = collect(job, data, np.arange(30), stages=stages, folder=folder)
        return train_externally(job, samples, trainer, stages, timeout)


def script(tmp_path, text):
    (tmp_path / "trainer.py").write_text(text)
    program = shlex.quote(str(tmp_path / "trainer.py"))
    return find_trainer(f"{shlex.quote(sys.executable)} {program} {{dir}}")


def test_a_command_trains_on_plain_files(job, tmp_path):
    found = trained(job, script(tmp_path, WRITE))
    # float32 least squares of 30 rows
    np.testing.assert_allclose(found.parameters["w"], SLOPE, atol=1e-5)
    assert found.result.steps == 2


def test_json_lines_become_progress(job, tmp_path):
    seen = []
    trained(job, script(tmp_path, WRITE), watch=seen.append)
    assert ("train", 1, 2, "loss 0.5") in [(p.stage, p.done, p.total, p.text) for p in seen]


def test_the_samples_are_gone_afterwards(job, tmp_path):
    trained(job, script(tmp_path, WRITE))
    assert not job.path("data").exists()


def test_samples_are_read_back_as_they_were(job):
    def train(job):
        samples = read_samples(job)
        assert samples.labels.tolist() == list(range(30))
        np.testing.assert_array_equal(samples.feed(slice(3, 5))["x"], rows(30)[3:5])
        return job.parameters()

    trained(job, Function("mine", train))


def test_a_command_that_fails_shows_what_it_said(job, tmp_path):
    trainer = script(tmp_path, "import sys; print('no such device'); sys.exit(3)")
    with pytest.raises(TrainingError, match="exit code 3:\n  no such device"):
        trained(job, trainer)
    assert not job.path("data").exists()


def test_a_command_that_writes_nothing_is_no_success_even_after_one_that_did(job, tmp_path):
    trained(job, script(tmp_path, WRITE))
    with pytest.raises(TrainingError, match=r"result\.json' is missing"):
        trained(job, script(tmp_path, ""))


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(job, tmp_path):
    child = "import time, sys, pathlib; time.sleep(60)"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    with pytest.raises(TrainingError, match="--timeout"):
        trained(job, script(tmp_path, text), timeout=0.3)
    assert time.monotonic() - began < 30


def test_ctrl_c_ends_the_command(job, tmp_path):
    mark = tmp_path / "ended"
    text = (
        "import signal, sys, pathlib, time\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (mark.touch(), sys.exit()))\n"
        "print('{\"step\": 1}', flush=True)\n"
        "time.sleep(60)\n"
    )

    def watch(progress):
        if progress.stage == "train" and progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(job, script(tmp_path, text), watch=watch)
    assert mark.exists()
    assert not job.path("data").exists()


def test_the_folder_is_one_argument_whatever_its_name(job):
    trainer = find_trainer("echo 'in {dir}' $HOME `id`")
    assert isinstance(trainer, Command)
    assert trainer.arguments == ("echo", "in {dir}", "$HOME", "`id`")


def test_a_command_must_say_where_the_folder_goes():
    with pytest.raises(ConfigError, match=r"\{dir\}"):
        find_trainer("python train.py")


def test_a_program_that_does_not_exist_is_named(job):
    with pytest.raises(ConfigError, match="no-such-program"):
        trained(job, find_trainer("no-such-program {dir}"))


def test_a_function_is_found_by_its_module(job, tmp_path, monkeypatch):
    (tmp_path / "my_trainer_of_lines.py").write_text(
        "def train(job):\n    return {**job.parameters(), 'w': job.parameters()['w'] + 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = trained(job, find_trainer("my_trainer_of_lines:train"))
    np.testing.assert_array_equal(found.parameters["w"], job.parameters()["w"] + 1)


def test_a_trainer_is_found_among_entry_points(job, tmp_path, monkeypatch):
    (tmp_path / "offers_a_trainer.py").write_text("def train(job):\n    return job.parameters()\n")
    about = tmp_path / "offers_a_trainer-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offers-a-trainer\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[ptq.qat_trainers]\nstill = offers_a_trainer:train\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = trained(job, find_trainer("still"))
    assert found.result.trainer == "still"


def test_a_function_that_raises_is_named(job):
    def train(job):
        raise RuntimeError("out of memory")

    with pytest.raises(TrainingError, match="'mine' raised RuntimeError: out of memory"):
        trained(job, Function("mine", train))


def test_a_function_that_returns_other_arrays_is_refused(job):
    with pytest.raises(TrainingError, match="missing"):
        trained(job, Function("mine", lambda job: {"w": job.parameters()["w"]}))


def test_the_index_names_every_file(job):
    with data_folder(job) as folder:
        data = HeldFeeds([{"x": rows(3)}], SPEC)
        samples = collect(job, data, stages=Stages(), folder=folder)
        train_externally(job, samples, Function("f", lambda job: job.parameters()), Stages())
        index = json.loads((folder / "index.json").read_text())
    assert index == {
        "rows": 3,
        "inputs": {"x": "0.npy"},
        "targets": {"target": "1.npy"},
        "shared": [],
        "labels": None,
    }
