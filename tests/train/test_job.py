"""A job is opened only if it is whole, and takes only what fits it."""

import json

import numpy as np
import pytest
from support.jobs import line_job

from ptq.errors import ConfigError, TrainingError
from ptq.train.arrays import packed, read_arrays
from ptq.train.job import Job, Result, read_trained


@pytest.fixture
def job(tmp_path):
    return line_job(tmp_path / "job", positive=True)


def edit(job, **changes):
    path = job.path("manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def written(job, **changes):
    parameters = {**job.parameters(), **changes}
    job.path("params.out.npz").write_bytes(packed(parameters))
    job.path("result.json").write_text(json.dumps({"manifest": job.digest, "of": "another"}))


def test_what_is_written_is_read_back(job):
    trained = {**job.parameters(), "scale": np.array(2.5, np.float32)}
    job.write(trained, Result(manifest=job.digest, steps=3))
    found = read_trained(job)
    assert found.result.steps == 3
    assert {n: a.tolist() for n, a in found.parameters.items()} == {
        n: a.tolist() for n, a in trained.items()
    }


def test_a_folder_without_a_job_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(ConfigError, match="ptq qat export"):
        Job.open(tmp_path)


def test_another_version_is_refused_whatever_else_it_holds(job):
    edit(job, version=99, batch="many")
    with pytest.raises(TrainingError, match="version 99"):
        Job.open(job.folder)


def test_a_damaged_manifest_says_where(job):
    edit(job, batch="many")
    with pytest.raises(TrainingError, match=r"\$\.batch"):
        Job.open(job.folder)


def test_a_file_that_was_changed_is_refused(job):
    job.path("eval.onnx").write_bytes(b"other")
    with pytest.raises(TrainingError, match=r"eval\.onnx"):
        Job.open(job.folder)


def test_a_file_that_is_missing_is_named(job):
    job.path("teacher.onnx").unlink()
    with pytest.raises(TrainingError, match=r"teacher\.onnx"):
        Job.open(job.folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"w": np.zeros((3, 1), np.float32)}, r"'w' is float32 of shape \(3, 1\)"),
        ({"w": np.zeros((1, 3))}, "'w' is float64"),
        ({"w": np.full((1, 3), np.nan, np.float32)}, "'w' takes a NaN"),
        ({"scale": np.array(0.0, np.float32)}, "'scale' has to stay above 0"),
        ({"more": np.zeros(1, np.float32)}, "'more' is no parameter"),
    ],
)
def test_trained_parameters_that_do_not_fit_are_refused(job, changes, words):
    written(job, **changes)
    with pytest.raises(TrainingError, match=words):
        read_trained(job)


def test_a_parameter_that_was_not_written_is_named(job):
    written(job)
    parameters = read_arrays(job.path("params.out.npz"))
    del parameters["w"]
    job.path("params.out.npz").write_bytes(packed(parameters))
    with pytest.raises(TrainingError, match="'w' is missing"):
        read_trained(job)


def test_the_result_of_another_job_is_refused(job):
    written(job)
    job.path("result.json").write_text(json.dumps({"manifest": "0" * 64}))
    with pytest.raises(TrainingError, match="another job"):
        read_trained(job)


def test_pickled_objects_are_refused(job):
    written(job)
    np.savez(job.path("params.out.npz"), w=np.array([{}], object))
    with pytest.raises(TrainingError, match="of plain arrays"):
        read_trained(job)
