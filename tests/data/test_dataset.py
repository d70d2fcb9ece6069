import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.data import Dataset, evenly_spaced, hash_feed, open_dataset
from ptq.errors import ConfigError, DataError


@given(available=st.integers(1, 300), samples=st.integers(1, 300))
def test_samples_are_distinct_increasing_and_spread(available, samples):
    chosen = evenly_spaced(available, samples)
    assert len(chosen) == min(available, samples)
    assert chosen[0] == 0
    gaps = np.diff([*chosen, available])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_all_samples_are_used_unless_told_otherwise():
    assert list(evenly_spaced(4, None)) == [0, 1, 2, 3]
    assert list(evenly_spaced(4, 9)) == [0, 1, 2, 3]
    assert list(evenly_spaced(10, 4)) == [0, 2, 5, 7]


@pytest.fixture
def npz(tmp_path, rng):
    path = tmp_path / "calib.npz"
    np.savez(path, x=rng.random((10, 4)))
    return path


def test_a_data_set_can_be_read_again_with_the_same_result(npz, spec):
    dataset = open_dataset(npz, [spec(shape=("N", 4))], samples=4)
    assert len(dataset) == dataset.expected == 4
    assert dataset.available == 10
    first, second = list(dataset), list(dataset)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_two_passes_can_be_interleaved(npz, spec):
    dataset = open_dataset(npz, [spec(shape=("N", 4))])
    for a, b in zip(dataset, dataset, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_a_notice_is_given_once_and_names_the_source(npz, spec):
    dataset = open_dataset(npz, [spec(shape=("N", 4))], samples=11)
    list(dataset)
    list(dataset)
    assert dataset.notices == [
        f"{npz}: has 10 samples, fewer than the 11 asked for",
        f"{npz}: input 'x' is cast from float64 to float32",
    ]


def test_the_digest_is_that_of_the_feeds_whatever_the_container(npz, spec, tmp_path):
    inputs = [spec(shape=("N", 4))]
    dataset = open_dataset(npz, inputs, samples=3)
    hasher = hashlib.sha256()
    directory = tmp_path / "feeds"
    directory.mkdir()
    for i, feed in enumerate(dataset):
        hash_feed(hasher, feed)
        np.savez_compressed(directory / f"{i}.npz", **feed)
    assert dataset.digest() == hasher.hexdigest()
    assert open_dataset(directory, inputs).digest() == dataset.digest()
    assert open_dataset(npz, inputs, samples=4).digest() != dataset.digest()


def test_feeds_are_checked_and_the_error_names_the_sample(tmp_path, spec):
    np.savez(tmp_path / "a.npz", x=np.array([[1], [3 << 40]]))
    dataset = open_dataset(tmp_path / "a.npz", [spec(shape=("N", 1), dtype="int32")])
    with pytest.raises(DataError, match=r"a\.npz sample 1: input 'x' is int64, .* cannot hold"):
        list(dataset)


def test_a_data_set_can_be_sent_to_another_process(npz, spec):
    dataset = open_dataset(npz, [spec(shape=("N", 4))])
    assert pickle.loads(pickle.dumps(dataset)).digest() == dataset.digest()


@pytest.mark.parametrize("samples", [0, -3])
def test_fewer_than_one_sample_is_refused(npz, spec, samples):
    with pytest.raises(ConfigError, match=f"cannot use {samples} samples; ask for 1 or more"):
        open_dataset(npz, [spec(shape=("N", 4))], samples=samples)


def test_a_new_reader_needs_one_class(spec):
    class Ones(Dataset):
        kind = form = "ones"

        @classmethod
        def accepts(cls, source):
            return source == "ones"

        def __init__(self, request):
            super().__init__(request)
            self._choose(2, request.samples)

        def _feeds(self):
            for i in self.positions:
                yield f"ones {i}", {"x": np.ones(3)}

    from ptq.data import DataRequest

    ones = Ones(DataRequest("ones", (spec(shape=(3,)),)))
    assert [feed["x"].dtype for feed in ones] == [np.float32] * 2
    assert ones.notices == ["ones: input 'x' is cast from float64 to float32"]
