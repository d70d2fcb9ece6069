import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import CalibrationError, PtqError
from ptq.stats.base import TensorStats
from ptq.stats.store import load_stats, save_stats

BATCH = hnp.arrays(
    np.float32,
    st.integers(0, 20),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
HEADER = {"model": "0123", "samples": 3, "settings": {"decay": 0.9}, "name": "größe"}


def example():
    rng = np.random.default_rng(0)
    return {
        name: TensorStats.of(rng.standard_normal(100).astype(np.float32))
        for name in ("input", "conv/1:0", "größe")
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stats.npz"


def test_what_is_saved_is_loaded(path):
    tensors = example()
    save_stats(path, HEADER, tensors)
    header, loaded = load_stats(path)
    assert header == HEADER
    assert loaded == tensors
    assert list(loaded) == list(tensors)


@given(st.dictionaries(st.text(), BATCH, max_size=4))
def test_any_statistics_come_back(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("any") / "stats.npz"
    tensors = {name: TensorStats.of(x) for name, x in batches.items()}
    save_stats(path, {}, tensors)
    assert load_stats(path)[1] == tensors


def test_loaded_statistics_add(path):
    tensors = example()
    save_stats(path, {}, tensors)
    loaded = load_stats(path)[1]
    assert loaded["input"] + tensors["input"] == tensors["input"] + tensors["input"]


def test_the_same_statistics_give_the_same_bytes(path, tmp_path):
    save_stats(path, HEADER, example())
    again = tmp_path / "again.npz"
    save_stats(again, dict(reversed(HEADER.items())), example())
    assert path.read_bytes() == again.read_bytes()


def test_numpy_reads_the_file_without_pickle(path):
    save_stats(path, HEADER, example())
    with np.load(path, allow_pickle=False) as members:
        assert json.loads(members["header"].tobytes())["tensors"] == list(example())
        assert len(members.files) < 20


def test_saving_replaces_the_file_and_leaves_no_other(path):
    path.write_text("old")
    save_stats(path, HEADER, example())
    assert load_stats(path)[0] == HEADER
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file_alone(path, monkeypatch):
    path.write_text("old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CalibrationError, match=r"stats\.npz.*No space"):
        save_stats(path, HEADER, example())
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PtqError, match="nowhere"):
        save_stats(tmp_path / "nowhere" / "stats.npz", {}, {})
    with pytest.raises(CalibrationError, match="nowhere"):
        load_stats(tmp_path / "nowhere.npz")


def rewritten(path, change):
    """Save the statistics, apply a change to the members, and write them back."""
    save_stats(path, HEADER, example())
    with np.load(path) as archive:
        members = dict(archive)
    change(members)
    np.savez(path, **members)


def header_with(**fields):
    def change(members):
        about = {**json.loads(members["header"].tobytes()), **fields}
        members["header"] = np.frombuffer(json.dumps(about).encode(), np.uint8)

    return change


MALFORMED = {
    "no header": lambda m: m.pop("header"),
    "header is not JSON": lambda m: m.update(header=np.frombuffer(b"{", np.uint8)),
    "header is a list": lambda m: m.update(header=np.frombuffer(b"[]", np.uint8)),
    "another format": header_with(format=2),
    "too few names": header_with(tensors=["input"]),
    "names are a number": header_with(tensors=3),
    "header field is a number": header_with(header=3),
    "a column is missing": lambda m: m.pop("hist.place"),
    "sizes are missing": lambda m: m.pop("hist.counts.size"),
    "an unknown statistic": lambda m: m.update({"x.y": np.zeros(3), "x.y.size": np.ones(3, int)}),
    "bins are cut short": lambda m: m.update({"hist.counts": m["hist.counts"][:-1]}),
    "a negative size": lambda m: m.update({"hist.counts.size": -m["hist.counts.size"]}),
    "counts are floats": lambda m: m.update({"hist.counts": m["hist.counts"].astype(float)}),
    "counts are negative": lambda m: m.update({"hist.counts": -m["hist.counts"]}),
    "extremes are NaN": lambda m: m.update({"minmax.ends": m["minmax.ends"] * np.nan}),
    "extremes are in disorder": lambda m: m.update({"minmax.ends": -m["minmax.ends"]}),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_refused_by_name(path, change):
    rewritten(path, change)
    with pytest.raises(CalibrationError, match=r"stats\.npz.*ptq calibrate"):
        load_stats(path)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04", b"\x93NUMPY"])
def test_another_file_is_refused_by_name(path, content):
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"stats\.npz"):
        load_stats(path)


def test_an_array_alone_is_refused(tmp_path):
    path = tmp_path / "stats.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(CalibrationError, match=r"stats\.npz"):
        load_stats(path)


def test_a_pickle_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("header.npy", "w") as member:
        np.lib.format.write_array(member, np.array([{}], object))
    with pytest.raises(CalibrationError, match=r"stats\.npz"):
        load_stats(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(path, keep):
    save_stats(path, HEADER, example())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CalibrationError, match=r"stats\.npz"):
        load_stats(path)


def test_a_flipped_bit_is_refused(path):
    save_stats(path, HEADER, example())
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"stats\.npz"):
        load_stats(path)
