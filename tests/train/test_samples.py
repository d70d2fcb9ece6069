"""Samples are kept as they were given, with what the teacher makes of them."""

import numpy as np
import pytest
from support.jobs import BATCH, SLOPE, WIDTH, line_job, rows

from ptq.data.feeds import InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import DataError
from ptq.progress import Stages
from ptq.train.samples import collect, held_out, open_data

SPEC = (InputSpec("x", np.dtype(np.float32), (None, None)),)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return line_job(tmp_path_factory.mktemp("jobs") / "job")


def gathered(job, feeds, labels=None, **more):
    data = HeldFeeds([{"x": x} for x in feeds], SPEC)
    return collect(job, data, labels, stages=Stages(), **more)


def test_feeds_of_any_number_of_rows_become_rows(job):
    parts = [rows(1, 0), rows(9, 1), rows(4, 2)]
    found = gathered(job, parts)
    whole = np.concatenate(parts)
    assert found.rows == 14
    chosen = np.array([13, 0, 5])
    feed = found.feed(chosen)
    np.testing.assert_array_equal(feed["x"], whole[chosen])
    np.testing.assert_allclose(feed["target"], (whole @ SLOPE.T)[chosen], rtol=1e-5)


def test_rows_are_not_held_in_memory(job):
    found = gathered(job, [rows(5)])
    assert isinstance(found.inputs["x"], np.memmap)
    assert isinstance(found.targets["target"], np.memmap)


def test_nothing_is_left_in_the_folder(job):
    before = sorted(job.folder.iterdir())
    found = gathered(job, [rows(5)])
    assert sorted(job.folder.iterdir()) == before
    assert found.feed(slice(0, 2))["x"].shape == (2, WIDTH)


def test_files_that_stay_are_plain_npy(job, tmp_path):
    found = gathered(job, [rows(5), rows(7, 1)], folder=tmp_path)
    read = np.load(tmp_path / "0.npy", allow_pickle=False)
    np.testing.assert_array_equal(read, found.inputs["x"])
    assert read.shape == (12, 1, WIDTH)


def test_feeds_of_another_shape_are_left_out_with_their_labels_and_counted(job):
    feeds = [rows(2), np.zeros((3, WIDTH + 1), np.float32), rows(1, 1)]
    found = gathered(job, feeds, np.arange(6))
    assert found.labels.tolist() == [0, 1, 5]
    assert "1 of 3 samples are left out" in found.notices[0]
    assert "(?, 3)" in found.notices[0]


def test_data_of_another_shape_alone_is_refused(job):
    with pytest.raises(DataError, match=r"'x' has shape \(2, 9\)"):
        gathered(job, [np.zeros((2, 9), np.float32)])


def test_labels_must_be_as_many_as_rows(job):
    with pytest.raises(DataError, match="3 labels"):
        gathered(job, [rows(4)], np.arange(3))


def test_the_digest_tells_data_apart(job):
    one, same, other = (gathered(job, [rows(4, seed)]).digest for seed in (0, 0, 1))
    assert one == same != other


def test_labels_of_held_out_feeds_come_with_them(tmp_path):
    job = line_job(tmp_path, held_out={"0/x": rows(5), "0/labels": np.arange(5)})
    found = held_out(job, stages=Stages())
    assert (found.rows, found.labels.tolist()) == (5, [0, 1, 2, 3, 4])


def test_data_is_read_as_calibration_reads_it(job, tmp_path):
    np.savez(tmp_path / "x.npz", x=rows(10))
    data = open_data(job, str(tmp_path / "x.npz"), samples=5)
    assert collect(job, data, stages=Stages()).rows == 5
    assert BATCH == 4


def test_rows_that_judge_the_others_are_left_out_with_their_labels(job):
    held = held_out(job, stages=Stages())
    judged = held.feed(slice(1, 3))["x"]
    parts = [rows(2), np.concatenate([judged[:1], rows(1, 7)]), judged[1:]]
    found = gathered(job, parts, np.arange(5), apart=held)
    assert found.labels.tolist() == [0, 1, 3]
    whole = np.concatenate(parts)[[0, 1, 3]]
    np.testing.assert_array_equal(found.feed(slice(None))["x"], whole)
    # float32 products of three numbers
    np.testing.assert_allclose(found.feed(slice(None))["target"], whole @ SLOPE.T, rtol=1e-5)


def test_data_that_is_all_held_out_is_refused(job):
    held = held_out(job, stages=Stages())
    with pytest.raises(DataError, match="all of it is held out"):
        gathered(job, [held.feed(slice(0, 2))["x"]], apart=held)
    with pytest.raises(DataError, match="and what has that shape is held out"):
        gathered(job, [np.zeros((1, 9), np.float32), held.feed(slice(0, 2))["x"]], apart=held)
