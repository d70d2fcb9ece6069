"""`examples/qat`: both trainers fit the line of a small job; run here, as torch is slow to load."""

import argparse
import importlib
import sys
import warnings

import numpy as np
import pytest
from support.cli import ROOT
from support.documents import files
from support.jobs import SLOPE, line_job, rows

from ptq.data.feeds import InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.progress import Stages
from ptq.train.data_folder import data_folder
from ptq.train.external import Function, find_trainer, train_externally
from ptq.train.samples import collect

SPEC = (InputSpec("x", np.dtype(np.float32), (None, None)),)

OPTIONS = {"steps": 400, "lr": 0.1, "batch": 4, "seed": 0, "device": "cpu", "threads": 1}


@pytest.fixture
def example(monkeypatch):
    """Return a module of the examples, as its folder is on the path when it runs."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "examples" / "qat")

    def load(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their imports
            return importlib.import_module(name)

    return load


def trained(job, example, name):
    module, loop = example(name), example("loop")
    options = argparse.Namespace(**OPTIONS)

    def call(job):
        return loop.fit(job, module.make(job, options), options)

    with data_folder(job) as folder:
        data = HeldFeeds([{"x": rows(30)}], SPEC)
        samples = collect(job, data, stages=Stages(), folder=folder)
        return train_externally(job, samples, Function(name, call), Stages()).parameters


def test_the_trainer_of_the_documentation_trains(tmp_path):
    (tmp_path / "train.py").write_text(files(ROOT / "docs" / "training.md")["train.py"])
    job = line_job(tmp_path / "job", positive=True)
    trainer = find_trainer(f"{sys.executable} {tmp_path / 'train.py'} {{dir}}")
    with data_folder(job) as folder:
        data = HeldFeeds([{"x": rows(30)}], SPEC)
        samples = collect(job, data, stages=Stages(), folder=folder)
        found = train_externally(job, samples, trainer, Stages()).parameters
    # 300 steps of plain descent come so far
    np.testing.assert_allclose(found["w"] * found["scale"], SLOPE, atol=1e-2)
    assert found["seen"] == 300


def test_gradients_of_onnxruntime_train_with_an_optimizer_of_torch(tmp_path, example):
    found = trained(line_job(tmp_path / "job", positive=True), example, "with_onnxruntime")
    # what Adam leaves at the end of its schedule
    np.testing.assert_allclose(found["w"] * found["scale"], SLOPE, atol=1e-3)
    assert found["seen"] == OPTIONS["steps"]


def test_the_forward_pass_trains_as_a_module_of_torch(tmp_path, example):
    pytest.importorskip("onnx2fx")
    job = line_job(tmp_path / "job", positive=True, state=False)
    found = trained(job, example, "with_torch")
    # as above
    np.testing.assert_allclose(found["w"] * found["scale"], SLOPE, atol=1e-3)
