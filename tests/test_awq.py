"""AWQ on request: large channels keep more of their weights where that makes the error less."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.models import parse, write

import ptq
from ptq.awq import protecting
from ptq.embedded import PinnedPlacement
from ptq.errors import ConfigError
from ptq.options import RunOptions

SIZES = arrays(np.float64, 6, elements=st.floats(1e-3, 1e3))

#: A norm that only a dense layer reads.
NET = """
    g (float[N, 12, 64] x) => (float[N, 12, 96] y) <float[64] g, float[64] h, float[64, 96] w> {
      t = LayerNormalization <axis = -1> (x, g, h)
      y = MatMul (t, w)
    }"""


def test_the_worked_example():
    """Lin et al. 2024, with the normalization of their code: s / sqrt(max s * min s)."""
    s = protecting(np.array([16.0, 4.0, 1.0]), 0.5)
    np.testing.assert_allclose(s, [2, 1, 0.5])


@given(sizes=SIZES, strength=st.floats(0, 1))
def test_larger_channels_get_larger_factors_balanced_about_1(sizes, strength):
    s = protecting(sizes, strength)
    assert s.max() * s.min() == pytest.approx(1)
    order = np.argsort(sizes)
    assert np.all(np.diff(s[order]) >= -1e-12 * s.max())
    np.testing.assert_allclose(protecting(4 * sizes, strength), s)
    assert np.ptp(protecting(sizes, 0.0)) == 0


def test_channels_without_values_count_as_the_smallest():
    np.testing.assert_allclose(protecting(np.array([0, 4.0, 1]), 0.5), [0.5**0.5, 2**0.5, 0.5**0.5])
    np.testing.assert_array_equal(protecting(np.zeros(3), 0.5), np.ones(3))


def net() -> onnx.ModelProto:
    """Return the net with two channels of its norm twenty times as large as the others."""
    gain = np.ones(64, np.float32)
    gain[[3, 40]] = 20
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    return parse(NET, {"g": gain, "h": np.zeros(64, np.float32), "w": weight})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The net and its data, and what `ptq` makes of it with and without AWQ."""
    folder = tmp_path_factory.mktemp("awq")
    model = write(folder / "m.onnx", net())
    rng = np.random.default_rng(0)
    for name, count in (("calib", 24), ("eval", 16)):
        np.savez(folder / f"{name}.npz", x=rng.standard_normal((count, 12, 64)).astype(np.float32))
    results = {}
    for awq in (False, True):
        options = RunOptions(
            output=folder / f"{awq}.onnx", evaluation=folder / "eval.npz", seconds=0.05,
            # unpacked, each input of a MatMul has scales of its own anyway
            placement=PinnedPlacement(),
        )  # fmt: skip
        config = ptq.QuantizeConfig(scheme="weight-only", bits=4, awq=awq, allow_larger=True)
        results[awq] = ptq.quantize(model, folder / "calib.npz", config, options=options)
    return folder, results


def test_the_error_is_less_on_held_out_data_and_the_report_says_why(made):
    _, results = made
    plain, spared = (results[awq].report for awq in (False, True))
    assert spared.accuracy.sqnr_db > plain.accuracy.sqnr_db + 1
    # it folds into the norm
    assert spared.prepared[-1] == "awq: what dense layers read, 1 tensors"
    assert spared.prepared[-1] in spared.notices


def test_the_recipe_makes_the_same_bytes(made):
    folder, results = made
    recipe = ptq.read_recipe(results[True].output)
    assert recipe.config.awq
    assert recipe.data_sha256 is not None
    options = RunOptions(
        output=folder / "again.onnx", placement=recipe.placement, samples=recipe.samples,
        seconds=0.05,
    )  # fmt: skip
    again = ptq.quantize(folder / "m.onnx", folder / "calib.npz", recipe.config, options=options)
    assert again.output.read_bytes() == results[True].output.read_bytes()


def test_comparing_divides_the_float_model_likewise(made):
    folder, results = made
    found = ptq.compare(folder / "m.onnx", results[True].output, folder / "eval.npz")
    assert "y" in {layer.tensor for layer in found.layers}
    assert all(layer.sqnr_db > 10 for layer in found.layers if layer.sqnr_db is not None)


def test_it_is_of_weight_only_models_and_needs_data(made):
    folder, _ = made
    with pytest.raises(ConfigError, match="--awq is of --scheme weight-only, not static"):
        ptq.QuantizeConfig(awq=True)
    config = ptq.QuantizeConfig(scheme="weight-only", bits=4, awq=True)
    with pytest.raises(ConfigError, match=r"--awq .* give --calib-data"):
        options = RunOptions(output=folder / "none.onnx")
        ptq.quantize(folder / "m.onnx", None, config, options=options)
