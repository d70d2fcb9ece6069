"""Tweaked norms have the moments of the float network's, and are kept where that helps."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from support.models import parse, write

import ptq
from ptq.errors import CalibrationError, ConfigError
from ptq.graph.channel_taps import with_outputs
from ptq.graph.norms import tweak_norms
from ptq.options import RunOptions
from ptq.source import open_source
from ptq.tweaking import Moments, norm_tweaks, passes

TEXT = """
    g (float[N, 6, 8] x) => (float[N, 6, 4] y)
    <float[8, 8] w, float[8] b, float[8] g, float[8] h, float[8, 8] v, float[8] g2, float[8] h2,
     float[8, 4] u> {
      a = MatMul (x, w) c = Add (a, b)
      t = LayerNormalization <axis = -1> (c, g, h)
      m = MatMul (t, v)
      s = LayerNormalization <axis = -1> (m, g2, h2)
      y = MatMul (s, u)
    }"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("norms"), np.random.default_rng(0)
    for name in ("calib", "eval"):
        np.savez(folder / f"{name}.npz", x=rng.standard_normal((24, 6, 8)).astype(np.float32))
    return write(folder / "m.onnx", parse(TEXT))


@pytest.fixture
def feeds():
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((2, 6, 8)).astype(np.float32)} for _ in range(4)]


def bent(model, tweaks):
    """Return the tweaked model with weights as bad as those of few bits."""
    found = model.clone()
    tweak_norms(found, tweaks)
    for name in ("w", "v"):
        value = found.graph.initializers[name]
        array = value.const_value.numpy()
        value.const_value = ir.tensor(np.round(array), name=name)
    return found


def moments_of(model, feeds):
    """Return mean and deviation of both norms, from all values at once."""
    session = ort.InferenceSession(with_outputs(model, ["t", "s"]))
    made = [session.run(None, feed) for feed in feeds]
    rows = [np.concatenate(arrays).reshape(-1, 8) for arrays in zip(*made, strict=True)]
    return [(r.mean(axis=0), r.std(axis=0)) for r in rows]


def test_channels_have_the_moments_of_the_float_network(path, feeds):
    source = open_source(path)
    steps = []
    tweaks = norm_tweaks(
        source.model,
        lambda found: bent(source.model, found),
        feeds,
        source.folder,
        on_feed=lambda: steps.append(1),
    )
    assert len(tweaks) == 2
    assert len(steps) == passes(source.model) * len(feeds) == 12
    wanted = moments_of(source.model, feeds)
    made = moments_of(bent(source.model, tweaks), feeds)
    plain = moments_of(bent(source.model, {}), feeds)
    for (mean, std), (found_mean, found_std), (bad, _) in zip(wanted, made, plain, strict=True):
        assert np.abs(bad - mean).max() > 1e-2
        # float32 factors, shifts and sums of 8
        np.testing.assert_allclose(found_mean, mean, atol=1e-5)
        np.testing.assert_allclose(found_std, std, rtol=1e-4)


def test_a_channel_without_spread_keeps_its_factor_and_others_change_by_two_at_most():
    made = Moments(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0]))
    wanted = Moments(np.array([2.0, 3.0, 0.0]), np.array([5.0, 8.0, 0.1]))
    tweak = made.towards(wanted)
    np.testing.assert_allclose(tweak.factor, [1.0, 2.0, 0.5])
    np.testing.assert_allclose(tweak.shift, [1.0, 3.0, 0.0])


def test_a_model_without_norms_has_none(tmp_path, feeds):
    text = "g (float[N, 6, 8] x) => (float[N, 6, 4] y) <float[8, 4] w> { y = MatMul (x, w) }"
    source = open_source(write(tmp_path / "m.onnx", text))
    assert not norm_tweaks(source.model, lambda _: source.model, feeds, source.folder)
    assert passes(source.model) == 0


def test_values_that_are_not_finite_are_named(path, feeds):
    feeds[1]["x"][0] = np.nan
    source = open_source(path)
    with pytest.raises(CalibrationError, match="tensor 't' takes a NaN"):
        norm_tweaks(source.model, lambda _: source.model, feeds, source.folder)


def test_the_report_says_what_tweaking_did(path, tmp_path):
    options = RunOptions(output=tmp_path / "q.onnx", evaluation=path.with_name("eval.npz"))
    config = ptq.QuantizeConfig(
        tweak_norms=True, bias_correct=True, place=("all",), allow_larger=True
    )
    result = ptq.quantize(path, path.with_name("calib.npz"), config, options=options)
    biases, norms = result.report.refinements
    assert (biases.step, norms.step, norms.layers) == ("bias correction", "norm tweaking", 2)
    assert norms.kept == (norms.after_db > norms.before_db)


@pytest.mark.parametrize("scheme", ["dynamic", "weight-only"])
def test_other_schemes_have_nothing_to_tweak(scheme):
    with pytest.raises(ConfigError, match="--tweak-norms means nothing"):
        ptq.QuantizeConfig(scheme=scheme, tweak_norms=True)
