"""Statistics as files: the same again, refused when stale, mergeable."""

from dataclasses import replace
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pytest
from support.models import parse
from support.nets import normal

from ptq.calibration import Calibration, Header, ObserverSettings, observe_tensors
from ptq.data import open_dataset
from ptq.errors import CalibrationError
from ptq.source import open_source

NET = """
    g (float[N, 4, 12, 12] x) => (float[N, 4, A, B] y)
    <float[4, 4, 3, 3] w, float[4, 4, 1, 1] v> {
      t = Conv (x, w)
      r = Relu (t)
      y = Conv (r, v)
    }"""
TENSORS = ["x", "t", "r", "y"]
SETTINGS = ObserverSettings(sample_size=64, ema_decay=0.9, threads=1)


@pytest.fixture
def work(tmp_path):
    """A model, data of twelve samples, and shards of it."""
    (tmp_path / "model.onnx").write_bytes(parse(NET).SerializeToString())
    images = normal((12, 4, 12, 12))
    np.savez(tmp_path / "all.npz", x=images)
    for name, part in (("a", images[:3]), ("b", images[3:8]), ("c", images[8:])):
        np.savez(tmp_path / f"{name}.npz", x=part)
    return tmp_path


@pytest.fixture
def source(work):
    return open_source(work / "model.onnx")


def data(source, name):
    return open_dataset(str(source.path.parent / f"{name}.npz"), source.inputs)


def observed(source, name, **changes):
    settings = replace(SETTINGS, **changes)
    return observe_tensors(source, TENSORS, data(source, name), settings)


def same(a, b):
    """The same statistics, moving averages to the last few bits."""
    assert a.keys() == b.keys()
    for name, one in a.items():
        other = b[name]
        assert one.minmax == other.minmax
        assert one.hist == other.hist
        assert (one.ema.lo, one.ema.hi) == pytest.approx((other.ema.lo, other.ema.hi), rel=1e-12)
        assert one.ema.batches == other.ema.batches


def test_a_header_says_what_was_observed(source):
    found = observed(source, "all").header
    assert found.model_sha256 == source.digest
    assert found.data_sha256 == data(source, "all").digest()
    assert found.samples == 12
    assert not found.synthetic
    assert (found.sample_size, found.ema_decay) == (64, 0.9)


def test_a_file_gives_back_what_was_saved(source, work):
    found = observed(source, "all")
    found.save(work / "stats.npz")
    loaded = Calibration.load(work / "stats.npz")
    assert loaded.header == found.header
    assert list(loaded.stats) == TENSORS
    assert loaded.stats == found.stats


def test_the_same_statistics_are_the_same_bytes(source, work):
    for name in ("one", "two"):
        observed(source, "all").save(work / name)
    assert (work / "one").read_bytes() == (work / "two").read_bytes()


# -- shards --------------------------------------------------------------------------------------


def test_merged_shards_equal_one_pass(source):
    whole = observed(source, "all")
    merged = reduce(add, (observed(source, name) for name in "abc"))
    same(merged.stats, whole.stats)
    assert merged.header.samples == whole.header.samples


def test_merging_is_associative(source):
    a, b, c = (observed(source, name) for name in "abc")
    same(((a + b) + c).stats, (a + (b + c)).stats)


def test_the_order_of_the_shards_matters_to_moving_averages_alone(source):
    a, b = (observed(source, name) for name in "ab")
    one, other = a + b, b + a
    for name in TENSORS:
        assert one.stats[name].minmax == other.stats[name].minmax
        assert one.stats[name].hist == other.stats[name].hist
        assert one.stats[name].ema != other.stats[name].ema
    assert one.header.data_sha256 != other.header.data_sha256


def test_a_merged_header_knows_its_parts(source):
    a, b = (observed(source, name) for name in "ab")
    made_up = Calibration(msgspec.structs.replace(b.header, synthetic=True), b.stats)
    found = (a + made_up).header
    assert found.synthetic
    assert found.data_source == f"{a.header.data_source} + {b.header.data_source}"
    assert found.data_sha256 not in (a.header.data_sha256, b.header.data_sha256)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"sample_size": 128}, "sample_size"), ({"ema_decay": 0.5}, "ema_decay")],
)
def test_other_settings_do_not_merge(source, changes, name):
    with pytest.raises(CalibrationError, match=f"statistics differ in {name}"):
        observed(source, "a") + observed(source, "b", **changes)


def test_another_model_does_not_merge(source):
    a, b = (observed(source, name) for name in "ab")
    other = Calibration(msgspec.structs.replace(b.header, model_sha256="0" * 64), b.stats)
    with pytest.raises(CalibrationError, match="statistics differ in model_sha256"):
        a + other


def test_other_tensors_do_not_merge(source):
    a, b = (observed(source, name) for name in "ab")
    fewer = Calibration(b.header, {"x": b.stats["x"]})
    with pytest.raises(CalibrationError, match="statistics are of different tensors"):
        a + fewer


# -- stale files ---------------------------------------------------------------------------------


def test_statistics_of_this_model_and_data_are_fresh(source, work):
    found = observed(source, "all")
    found.require_fresh(source, work / "stats.npz", data(source, "all"))
    found.require_fresh(source, work / "stats.npz", None)


def test_statistics_of_another_model_are_stale(source, work):
    found = observed(source, "all")
    (work / "other.onnx").write_bytes(parse(NET, seed=1).SerializeToString())
    with pytest.raises(CalibrationError, match=r"'s.npz' holds statistics of another model than"):
        found.require_fresh(open_source(work / "other.onnx"), "s.npz", None)


def test_statistics_of_other_data_are_stale(source, work):
    found = observed(source, "a")
    with pytest.raises(CalibrationError, match=r"'s.npz' holds statistics of other data than"):
        found.require_fresh(source, "s.npz", data(source, "b"))


@pytest.mark.parametrize("field", [{"ptq": "0.0.0"}, {"schema": 0}])
def test_a_file_of_another_version_is_refused(source, work, field):
    found = observed(source, "a")
    Calibration(msgspec.structs.replace(found.header, **field), found.stats).save(work / "old.npz")
    with pytest.raises(CalibrationError, match=r"was made by ptq .*; run `ptq calibrate` again"):
        Calibration.load(work / "old.npz")


def test_a_header_that_lacks_something_is_refused(source, work):
    from ptq.stats.store import save_stats

    found = observed(source, "a")
    header = msgspec.to_builtins(found.header)
    del header["samples"]
    save_stats(work / "odd.npz", header, found.stats)
    with pytest.raises(CalibrationError, match=r"is not a statistics file of ptq.*samples"):
        Calibration.load(work / "odd.npz")


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "feeds", "size"),
    [(100, 5, 100), (0, 1, 1 << 14), (0, 64, 1 << 13), (0, 10**6, 1 << 11), (0, 0, 1 << 14)],
)
def test_the_sample_size_follows_the_number_of_feeds_unless_it_is_given(asked, feeds, size):
    assert replace(SETTINGS, sample_size=asked).for_feeds(feeds) == size


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_make_no_difference_to_the_file(source, work, threads):
    observed(source, "all").save(work / "one.npz")
    observed(source, "all", threads=threads).save(work / "many.npz")
    assert (work / "one.npz").read_bytes() == (work / "many.npz").read_bytes()


def test_random_data_marks_the_statistics(source):
    made_up = open_dataset("random", source.inputs, samples=2, seed=3)
    assert observe_tensors(source, TENSORS, made_up, SETTINGS).header.synthetic


def test_progress_is_told_of_every_sample(source):
    told = []
    observe_tensors(source, TENSORS, data(source, "all"), SETTINGS, on_feed=lambda: told.append(1))
    assert len(told) == 12


def test_external_weights_are_found(source, work):
    import onnx

    model = onnx.load(work / "model.onnx")
    folder = work / "split"
    folder.mkdir()
    onnx.save_model(
        model, folder / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    found = observe_tensors(open_source(folder / "m.onnx"), TENSORS, data(source, "a"), SETTINGS)
    assert found.stats == observed(source, "a").stats


def test_the_header_is_plain_data(source):
    header = observed(source, "a").header
    assert msgspec.convert(msgspec.to_builtins(header), Header) == header
