"""The built-in trainer: it learns, is reproducible, goes on after a kill, and knows its end."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cli import environment
from support.jobs import SLOPE, line_job, rows

from ptq.data.feeds import InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError, TrainingError
from ptq.progress import Stages
from ptq.train.arrays import packed
from ptq.train.checkpoint import Checkpoint
from ptq.train.samples import collect, held_out
from ptq.train.trainer import TrainOptions, row_order, train

SPEC = (InputSpec("x", np.dtype(np.float32), (None, None)),)
OPTIONS = TrainOptions(steps=40, batch=8, lr=0.05, eval_every=10, patience=0, resume=False)
RESUMING = replace(OPTIONS, resume=True)


@pytest.fixture
def job(tmp_path):
    return line_job(tmp_path / "job")


class KilledError(Exception):
    """What a kill looks like from inside."""


def trained(job, options=OPTIONS, *, kill_after=None, count=30):
    def watch(progress):
        if progress.stage == "train" and progress.done == kill_after:
            raise KilledError

    stages = Stages(watch)
    data = collect(job, HeldFeeds([{"x": rows(count)}], SPEC), stages=stages)
    return train(job, data, held_out(job, stages=stages), options, stages)


def names(job):
    return sorted(path.name for path in job.folder.iterdir())


def content(outcome):
    return packed(outcome.parameters)


def test_the_line_of_the_teacher_is_found(job):
    outcome = trained(job, replace(OPTIONS, steps=400, lr=0.1))
    found = outcome.parameters["w"] * outcome.parameters["scale"]
    np.testing.assert_allclose(found, SLOPE, atol=1e-3)
    assert outcome.result.best.loss < 1e-6 < outcome.result.before.loss


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(job):
    one, same = trained(job), trained(job)
    other = trained(job, replace(OPTIONS, seed=1))
    assert content(one) == content(same) != content(other)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_accumulated_batches_are_the_large_batch(job, optimizer):
    """One step on 8 samples, by formulas: the graph takes 4."""
    options = replace(OPTIONS, steps=1, lr=0.01, schedule="constant", optimizer=optimizer)
    outcome = trained(job, options)
    assert outcome.result.best.step == 1
    x = rows(30)[row_order(0, 0, 30)[:8]].astype(np.float64)
    start = job.parameters()
    error = x @ start["w"].T - x @ SLOPE.T.astype(np.float64)
    gradient = (2 * error * x).mean(axis=0)
    change = {"sgd": gradient, "adam": gradient / (np.abs(gradient) + 1e-8)}[optimizer]
    # float32 sums of 8 products
    np.testing.assert_allclose(
        outcome.parameters["w"][0], start["w"][0] - 0.01 * change, rtol=1e-5, atol=1e-6
    )


def test_a_state_becomes_what_the_graph_puts_out_at_every_run(job):
    outcome = trained(job)
    assert outcome.parameters["seen"] == outcome.result.best.step * 2


def test_what_has_no_gradient_stays(job):
    assert trained(job).parameters["unused"] == 7.0


@pytest.mark.parametrize("kill_after", [13, 20, 39])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(job, kill_after, optimizer):
    options = replace(RESUMING, optimizer=optimizer, checkpoint_every=7)
    whole = trained(job, options)
    job.path("params.ckpt.npz").unlink()
    with pytest.raises(KilledError):
        trained(job, options, kill_after=kill_after)
    resumed = trained(job, options)
    assert content(resumed) == content(whole)
    assert resumed.result.evaluations == whole.result.evaluations
    done = kill_after // 7 * 7
    assert resumed.result.notices == (f"went on from a checkpoint after {done} steps",)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import os, signal
from pathlib import Path
from train_again import go


def watch(progress):
    if progress.stage == "train" and progress.done == 25:
        os.kill(os.getpid(), signal.SIGKILL)


go({folder!r}, watch)
"""

AGAIN = """
import numpy as np
from support.jobs import rows
from ptq.data.feeds import InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.progress import Stages
from ptq.train.job import Job
from ptq.train.samples import collect, held_out
from ptq.train.trainer import TrainOptions, train

def go(folder, watch):
    job, stages = Job.open(folder), Stages(watch)
    spec = (InputSpec("x", np.dtype(np.float32), (None, None)),)
    data = collect(job, HeldFeeds([{"x": rows(30)}], spec), stages=stages)
    options = TrainOptions(steps=40, batch=8, lr=0.05, eval_every=10, patience=0)
    return train(job, data, held_out(job, stages=stages), options, stages)
"""


def test_nothing_is_lost_when_the_process_is_killed(job, tmp_path):
    whole = trained(job)
    job.path("params.ckpt.npz").unlink()
    before = names(job)
    (tmp_path / "train_again.py").write_text(AGAIN)
    tests = str(Path(__file__).resolve().parents[1])
    script = KILLED.format(tests=tests, folder=str(job.folder))
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, timeout=60, env=environment(PYTHONPATH=path)
    )
    assert done.returncode == -signal.SIGKILL
    assert names(job) == sorted([*before, "params.ckpt.npz"])
    assert Checkpoint.load(job.path("params.ckpt.npz")).about.steps == 20
    assert content(trained(job, RESUMING)) == content(whole)


def test_another_setting_than_the_checkpoint_has_is_refused_with_both(job):
    with pytest.raises(KilledError):
        trained(job, kill_after=25)
    with pytest.raises(ConfigError, match=r"--lr was 0\.05 and is 0\.1.*--restart"):
        trained(job, replace(RESUMING, lr=0.1))
    with pytest.raises(ConfigError, match="the data was"):
        trained(job, RESUMING, count=29)
    fresh = trained(job, replace(OPTIONS, lr=0.1))
    assert fresh.result.notices == ()


def test_the_first_parameters_are_returned_if_nothing_is_better(job):
    outcome = trained(job, replace(OPTIONS, lr=100.0, schedule="constant"))
    assert outcome.result.best == outcome.result.before
    assert content(outcome) == packed(job.parameters())


def test_training_ends_after_evaluations_without_gain(job):
    options = replace(OPTIONS, lr=100.0, schedule="constant", eval_every=5, patience=3)
    result = trained(job, options).result
    assert (result.stopped, result.steps) == ("no-gain", 15)


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_best(job):
    options = replace(OPTIONS, lr=1e30, optimizer="sgd", eval_every=1, schedule="constant")
    outcome = trained(job, options)
    assert outcome.result.stopped == "not-finite"
    assert "lower --lr" in outcome.result.notices[-1]
    assert all(np.isfinite(a).all() for a in outcome.parameters.values())


def test_a_gradient_that_is_no_number_is_named(tmp_path):
    outcome = trained(line_job(tmp_path / "job", spoilt=True))
    assert outcome.result.stopped == "not-finite"
    assert "gradient of 'scale'" in outcome.result.notices[0]
    assert outcome.result.steps == 0


def test_a_loss_that_is_no_number_at_the_start_is_an_error(tmp_path):
    held = {"0/x": np.full((4, 3), np.inf, np.float32)}
    job = line_job(tmp_path / "job", held_out=held)
    with pytest.raises(TrainingError, match="before training"):
        trained(job)


def test_epochs_are_passes_through_the_samples(job):
    outcome = trained(job, replace(OPTIONS, steps=None, epochs=3))
    assert outcome.result.steps == 12  # 90 rows in steps of 8


def test_every_row_is_used_once_a_pass():
    assert sorted(row_order(3, 5, 30)) == list(range(30))


def test_fewer_samples_than_a_batch_are_used_again(job):
    assert trained(job, count=3).result.best.loss < trained(job, count=3).result.before.loss


def test_a_batch_that_the_graph_cannot_make_up_is_refused(job):
    with pytest.raises(ConfigError, match="multiple of 4"):
        trained(job, replace(OPTIONS, batch=6))


def test_a_graph_that_does_not_fit_the_manifest_is_refused(job, tmp_path):
    eval_ = job.path("eval.onnx").read_bytes()
    job.path("train.onnx").write_bytes(eval_)
    with pytest.raises(TrainingError, match="do not agree about"):
        trained(job)
