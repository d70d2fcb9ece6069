"""Outlier channel splitting on request: kept where it makes the error less."""

from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper
from support.models import parse, write

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.splitting import copies

SIZES = arrays(np.float64, 4, elements=st.floats(0, 100))

#: A residual stream behind a norm, which has an outlier.
NET = """
    g (float[N, 12, 64] x) => (float[N, 12, 64] y) <float[64] g, float[64, 64] w> {
      t = LayerNormalization <axis = -1> (x, g) a = MatMul (t, w) y = Add (a, t)
    }"""


@given(sizes=SIZES, more=st.integers(0, 3))
def test_of_one_sign_no_other_copies_make_the_range_less(sizes, more):
    counts = copies(np.zeros(4), sizes, more)
    every = (np.array(c) for c in product(range(1, more + 2), repeat=4) if sum(c) <= 4 + more)
    least = min(float((sizes / c).max()) for c in every)
    assert counts.min() >= 1
    assert counts.sum() <= 4 + more
    assert (sizes / counts).max() == pytest.approx(least)


def test_both_ends_are_split_and_none_in_vain():
    lo, hi = np.array([-8.0, -1, 0, 0.5]), np.array([1.0, 1, 6, 1])
    np.testing.assert_array_equal(copies(lo, hi, 1), [2, 1, 1, 1])
    np.testing.assert_array_equal(copies(lo, hi, 2), [2, 1, 2, 1])
    np.testing.assert_array_equal(copies(np.zeros(3), np.full(3, 6.0), 2), [1, 1, 1])


def net() -> onnx.ModelProto:
    model = parse(NET)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "g":
            array[:] = 1
            array[11] = 40
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `ptq` makes of the net with and without splitting."""
    folder = tmp_path_factory.mktemp("split")
    model = write(folder / "m.onnx", net())
    rng = np.random.default_rng(0)
    for name, count in (("calib", 24), ("eval", 16)):
        np.savez(folder / f"{name}.npz", x=rng.standard_normal((count, 12, 64)).astype(np.float32))
    results = {}
    for split in (False, True):
        options = RunOptions(output=folder / f"{split}.onnx", evaluation=folder / "eval.npz")
        config = ptq.QuantizeConfig(
            split_outliers=split, smooth=False, calib="minmax", place=("all",), allow_larger=True
        )
        results[split] = ptq.quantize(model, folder / "calib.npz", config, options=options)
    return folder, results


def test_outliers_cost_less_and_the_report_says_what_was_done(made):
    _, results = made
    plain, split = (results[s].report for s in (False, True))
    assert split.accuracy.sqnr_db > plain.accuracy.sqnr_db + 1
    assert split.prepared[-1] == "split: channels of what dense layers read, 1 tensors"
    assert split.prepared[-1] in split.notices


def test_the_recipe_makes_the_same_bytes(made):
    folder, results = made
    recipe = ptq.read_recipe(results[True].output)
    assert recipe.config.split_outliers
    options = RunOptions(
        output=folder / "again.onnx", placement=recipe.placement, samples=recipe.samples
    )
    again = ptq.quantize(folder / "m.onnx", folder / "calib.npz", recipe.config, options=options)
    assert again.output.read_bytes() == results[True].output.read_bytes()


def test_comparing_splits_the_float_model_likewise(made):
    folder, results = made
    found = ptq.compare(folder / "m.onnx", results[True].output, folder / "eval.npz")
    assert "t/joined" in {layer.tensor for layer in found.layers}
    assert all(layer.sqnr_db > 15 for layer in found.layers if layer.sqnr_db is not None)


@pytest.mark.parametrize("other", [{"scheme": "dynamic"}, {"data_free": True, "calib": "minmax"}])
def test_it_is_of_the_static_scheme_and_needs_data(other):
    with pytest.raises(ConfigError, match="--split-outliers"):
        ptq.QuantizeConfig(split_outliers=True, **other)
