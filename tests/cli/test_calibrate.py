"""`ptq calibrate`: observe once, solve many, merge what was observed apart."""

import numpy as np
import onnx
import pytest
from support.cli import contents, ptq

from ptq.calibration import Calibration

MODEL, CALIB, EVAL = "digits_cnn.onnx", "digits_calib.npz", "digits_eval.npz"


#: The default depends on the number of samples; parts can only be merged at one size.
SIZE = ("--sample-size", 4096)


@pytest.fixture(scope="module")
def parts(digits, tmp_path_factory):
    """A folder with the calibration data cut in two, and the statistics of each half."""
    folder = tmp_path_factory.mktemp("parts")
    with np.load(digits.calibration) as arrays:
        images = arrays["input"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # what is written tells names as they were given
        for name, part in (("a", images[:64]), ("b", images[64:])):
            np.savez(f"{name}.npz", input=part)
            given = ("--calib-data", f"{name}.npz", *SIZE, "-o", f"s{name}.npz")
            assert ptq("calibrate", digits.model, *given).code == 0
    return folder


@pytest.fixture
def halves(work, parts):
    """The two halves and their statistics, in the current folder."""
    for path in parts.iterdir():
        (work / path.name).write_bytes(path.read_bytes())
    return work


def test_it_says_what_it_observed(work):
    done = ptq("calibrate", MODEL, "--calib-data", CALIB, "--samples", 16, "-o", "s.npz")
    assert done.code == 0
    assert done.out == "observed 16 tensors on 16 samples; wrote s.npz\n"


def test_an_existing_file_is_kept_unless_forced(work):
    (work / "s.npz").write_text("precious")
    before = contents(work)
    done = ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", "s.npz")
    assert done.code == 2
    assert "'s.npz' exists; give --force" in done.message
    assert contents(work) == before
    assert ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", "s.npz", "--force").code == 0
    assert contents(work) != before


def test_the_data_is_never_overwritten(work):
    before = contents(work)
    for output in (CALIB, MODEL):
        assert ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", output, "--force").code == 2
    assert contents(work) == before


def test_the_same_command_writes_the_same_bytes(work):
    for name, threads in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2), ("d.npz", 4)):
        ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", name, "--threads", threads)
    assert len({(work / f"{n}.npz").read_bytes() for n in "abcd"}) == 1


def test_merged_halves_count_what_the_whole_counts(halves):
    ptq("calibrate", MODEL, "--calib-data", CALIB, *SIZE, "-o", "whole.npz")
    done = ptq("calibrate", MODEL, "--merge", "sa.npz", "--merge", "sb.npz", "-o", "both.npz")
    assert done.code == 0
    assert "on 128 samples" in done.out
    both, whole = (Calibration.load(halves / n) for n in ("both.npz", "whole.npz"))
    assert both.stats.keys() == whole.stats.keys()
    for name, stats in both.stats.items():
        other = whole.stats[name]
        assert stats.minmax == other.minmax, name
        assert stats.hist == other.hist, name
        # a composition of the same averages, in another order of rounding
        assert stats.ema.lo == pytest.approx(other.ema.lo, rel=1e-9)
        assert stats.ema.hi == pytest.approx(other.ema.hi, rel=1e-9)


@pytest.mark.parametrize("method", ["kl", "mse", "minmax", "percentile", "scale"])
def test_merged_halves_give_the_tensors_of_the_whole(halves, method):
    for arguments in (
        ("calibrate", MODEL, "--merge", "sa.npz", "--merge", "sb.npz", "-o", "both.npz"),
        ("quantize", MODEL, "--stats", "both.npz", "--calib", method, "-o", "a.onnx"),
        ("quantize", MODEL, "--calib-data", CALIB, *SIZE, "--calib", method, "-o", "b.onnx"),
    ):
        done = ptq(*arguments)
        assert done.code == 0, done.err
    a, b = (onnx.load(f"{n}.onnx") for n in "ab")
    assert a.graph == b.graph, "all but the recipe, which says that the data came in two parts"


def test_new_data_is_added_to_what_is_merged(halves):
    ptq("calibrate", MODEL, "--merge", "sa.npz", "--merge", "sb.npz", "-o", "both.npz")
    done = ptq(
        "calibrate", MODEL, "--calib-data", "a.npz", *SIZE, "--merge", "sb.npz", "-o", "added.npz"
    )
    assert done.code == 0
    assert (halves / "added.npz").read_bytes() == (halves / "both.npz").read_bytes()


def test_a_file_may_grow_by_merging_into_itself(halves):
    done = ptq(
        *("calibrate", MODEL, "--calib-data", "b.npz", *SIZE),
        *("--merge", "sa.npz", "-o", "sa.npz", "--force"),
    )
    assert done.code == 0
    assert Calibration.load(halves / "sa.npz").header.samples == 128


def test_random_data_marks_what_it_is_merged_into(work):
    ptq("calibrate", MODEL, "--calib-data", CALIB, *SIZE, "-o", "real.npz")
    ptq("calibrate", MODEL, "--calib-data", "random", *SIZE, "-o", "random.npz")
    ptq("calibrate", MODEL, "--merge", "real.npz", "--merge", "random.npz", "-o", "both.npz")
    assert Calibration.load(work / "both.npz").header.synthetic


def test_statistics_hold_no_absolute_path(work):
    ptq("calibrate", MODEL, "--calib-data", CALIB, "-o", "s.npz")
    assert str(work).encode() not in (work / "s.npz").read_bytes()
