"""Samples on disk: all are there, no more than fits, and nothing is left behind."""

import tempfile

import numpy as np
import pytest

from ptq.train.streams import streamed


def samples(count, width=3):
    return ({"x": np.full((1, width), i, np.float32), "n": np.asarray(i)} for i in range(count))


def test_what_is_written_is_read():
    with streamed(samples(5), 1 << 20) as (stream,):
        assert len(stream) == 5
        np.testing.assert_array_equal(stream.rows("x", [3, 1])[:, 0], [3, 1])
        assert stream.rows("n", [4]) == 4
        assert isinstance(stream.arrays["x"].base, np.memmap)


def test_samples_of_other_shapes_are_apart_and_the_most_come_first():
    both = [*samples(2), *samples(3, width=5)]
    with streamed(both, 1 << 20) as streams:
        assert [(len(s), s.rows("x", [0]).shape) for s in streams] == [(3, (1, 5)), (2, (1, 3))]


def test_no_more_is_written_than_may_be_and_at_least_one():
    for most, count in ((0, 1), (20, 1), (40, 2)):  # 20 bytes each
        with streamed(samples(9), most) as (stream,):
            assert len(stream) == count


def test_samples_are_taken_one_by_one():
    taken = []

    def counted():
        for sample in samples(9):
            taken.append(sample)
            yield sample

    with streamed(counted(), 40):
        assert len(taken) == 3


def test_nothing_is_left_when_it_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), streamed(samples(2), 1 << 20):
        assert any(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())
