"""Quantizing without data: what batchnorms tell, and what is said of what they do not tell."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.cli import ptq as command
from support.models import write

import ptq
from ptq.datafree import known_stats, made_up, observed_model, of_one
from ptq.errors import ConfigError
from ptq.graph.marginals import marginals
from ptq.options import RunOptions
from ptq.source import open_source

DATA_FREE = ptq.QuantizeConfig(data_free=True, calib="minmax")

#: By what pixels of the scaled model are larger: normal numbers are far off then.
SCALE, SHIFT = 40.0, 100.0


@pytest.fixture(scope="module")
def scaled(digits, tmp_path_factory):
    """Return the digits model for pixels ``40 x + 100``, and its held-out images."""
    folder = tmp_path_factory.mktemp("scaled")
    model = onnx.load(digits.model)
    [first] = [n for n in model.graph.node if model.graph.input[0].name in n.input]
    pads = next(a for a in first.attribute if a.name == "pads")
    assert any(pads.ints)
    for tensor in model.graph.initializer:
        if tensor.name == first.input[1]:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) / SCALE, tensor.name)
            )
    # padding is 0 for the convolution, and so it must be what comes in front that shifts
    shift = numpy_helper.from_array(np.float32(SHIFT), "shift")
    model.graph.initializer.append(shift)
    model.graph.node.insert(0, onnx.helper.make_node("Sub", ["input", "shift"], ["centred"]))
    first.input[0] = "centred"
    path = folder / "scaled.onnx"
    onnx.save(model, path)
    np.savez(folder / "eval.npz", input=SCALE * digits.images()[:100] + SHIFT)
    return path, folder / "eval.npz"


def quantized(path, evaluation, output, data=None, config=DATA_FREE):
    options = RunOptions(output=output, evaluation=str(evaluation), samples=8, seconds=0.05)
    return ptq.quantize(path, data, config, options=options).report


def test_feeds_hold_several_images_and_those_to_time_with_one(digits):
    source = open_source(digits.model)
    several = made_up(source, DATA_FREE, 1)
    [feed], [one] = several, of_one(source, DATA_FREE, several)
    assert feed["input"].shape == (8, 1, 8, 8)
    assert one["input"].shape == (1, 1, 8, 8)


def test_images_are_made_up_so_that_the_first_batchnorm_fits(scaled):
    path, _ = scaled
    [look] = made_up(open_source(path), DATA_FREE, 8).looks.values()
    # the mean and the deviation of pixels of digits are 0 and 1
    assert look.offset[0] == pytest.approx(SHIFT, abs=0.1 * SCALE)
    assert look.gain == pytest.approx(SCALE, rel=0.1)
    assert look.roughness in (1.0, 1.5)


def test_it_is_far_better_than_random_numbers_close_to_data_and_always_the_same(
    scaled, digits, tmp_path
):
    path, evaluation = scaled
    found = quantized(path, evaluation, tmp_path / "free.onnx")
    quantized(path, evaluation, tmp_path / "again.onnx")
    assert (tmp_path / "free.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    random = quantized(
        path, evaluation, tmp_path / "random.onnx", "random", ptq.QuantizeConfig(calib="minmax")
    )
    with np.load(digits.calibration) as arrays:
        np.savez(tmp_path / "calib.npz", input=SCALE * arrays["input"] + SHIFT)
    real = quantized(
        path, evaluation, tmp_path / "real.onnx", tmp_path / "calib.npz",
        ptq.QuantizeConfig(calib="minmax"),
    )  # fmt: skip
    assert found.accuracy.sqnr_db > random.accuracy.sqnr_db + 10
    assert found.accuracy.sqnr_db > real.accuracy.sqnr_db - 4


def test_the_report_says_loudly_that_there_was_no_data(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(
        "quantize", digits.model, "-o", "o.onnx", "--data-free", "--samples", 4, "--seconds", 0.05,
        "--json", "r.json", "--report", "r.md",
    )  # fmt: skip
    assert done.code == 0
    assert "NO DATA: 15 ranges follow from 12 batch normalizations" in done.out
    assert "NO DATA" in done.err
    report = ptq.Report.from_json((tmp_path / "r.json").read_bytes(), "r.json")
    assert report.data_free.batchnorms == 12
    assert (report.data_free.from_batchnorm, report.data_free.from_made_up) == (15, 1)
    assert report.config.calib == "minmax"
    assert report.calibration.synthetic
    assert any("NO DATA" in notice for notice in report.notices)
    # several images to a feed are for deviations; what is timed is one, as users run it
    assert report.evaluation.synthetic
    assert report.evaluation.sha256 != report.calibration.sha256
    page = (tmp_path / "r.md").read_text()
    assert "made without data" in page.splitlines()[0]
    assert "NO DATA" in page


def test_statistics_are_those_of_the_normals_and_observed_tensors_have_their_moments(digits):
    source = open_source(digits.model)
    stats = known_stats(source, 0.99)
    for name, marginal in marginals(source.model, source.normals):
        lo, hi = stats[name].minmax.lo, stats[name].minmax.hi
        assert (lo, hi) == pytest.approx((marginal.ends.min(), marginal.ends.max()), rel=1e-6)
        assert stats[name].hist.total == marginal.points.size
    assert observed_model(source).digest == source.digest


def test_factors_of_equalization_divide_what_is_known(digits):
    from ptq.graph.rescale.apply import encode
    from ptq.graph.rescale.groups import find_groups
    from ptq.graph.rescale.record import Rescaling
    from ptq.rescaling import divided_normals

    source = open_source(digits.model)
    group = find_groups(source.model)[0]
    factors = np.exp2(np.arange(group.channels) % 5 - 2.0)
    rescaling = Rescaling(equalized={group.name: encode(factors)})
    found = divided_normals(source.model, source.normals, rescaling)
    inside = {value.name for value in group.tensors} & source.normals.keys()
    assert inside
    for name, normal in source.normals.items():
        by = factors if name in inside else 1.0
        np.testing.assert_allclose(found[name].mean, normal.mean / by, rtol=1e-12)
        np.testing.assert_allclose(found[name].std, normal.std / by, rtol=1e-12)


def test_a_model_of_which_nothing_is_known_is_refused(tmp_path):
    text = "g (float[N, 8] x) => (float[N, 8] y) <float[8, 8] w> { y = MatMul (x, w) }"
    source = open_source(write(tmp_path / "m.onnx", text))
    with pytest.raises(ConfigError, match="nothing is known of the values in"):
        made_up(source, DATA_FREE, None)


def test_without_batchnorms_ranges_of_images_rest_on_noise_and_that_is_said(tmp_path):
    text = """g (float[N, 3, 16, 16] x) => (float[N, 8, 16, 16] y) <float[8, 3, 3, 3] w> {
        t = Conv <pads = [1, 1, 1, 1]> (x, w) y = Relu (t) }"""
    path = write(tmp_path / "m.onnx", text)
    options = RunOptions(output=tmp_path / "o.onnx", samples=2, seconds=0.05)
    config = ptq.QuantizeConfig(data_free=True, calib="minmax", allow_larger=True)
    report = ptq.quantize(path, None, config, options=options).report
    assert report.data_free.from_batchnorm == 0
    assert any("all ranges rest on noise" in notice for notice in report.notices)


def test_dynamic_axes_need_a_shape(tmp_path):
    text = """g (float[N, 3, H, W] x) => (float[N, 8, H, W] y) <float[8, 3, 1, 1] w> {
        y = Conv (x, w) }"""
    source = open_source(write(tmp_path / "m.onnx", text))
    with pytest.raises(ConfigError, match="give its size as in --shape x=1x3x64x64"):
        made_up(source, DATA_FREE, None)
    config = ptq.QuantizeConfig(data_free=True, calib="minmax", shape=("x=2x3x8x12",))
    [feed] = made_up(source, config, 1)
    assert feed["x"].shape == (2, 3, 8, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calib": "kl"}, "--data-free and --calib kl exclude each other"),
        ({"calib": "auto"}, "--data-free and --calib auto exclude each other"),
        ({"smooth": True}, "--data-free and --smooth exclude each other"),
        ({"rounding": "gptq"}, "--data-free and --rounding gptq exclude each other"),
        ({"scheme": "dynamic"}, "--data-free and --scheme dynamic exclude each other"),
        ({"data_free": False, "shape": ("1x3x8x8",)}, "--shape is of made-up inputs"),
    ],
)
def test_what_needs_data_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ptq.QuantizeConfig(**{"data_free": True, "calib": "minmax", **settings})


def test_data_that_is_there_is_not_ignored(digits, tmp_path):
    with pytest.raises(ConfigError, match="--data-free is for want of data, and there is some"):
        quantized(digits.model, digits.evaluation, tmp_path / "o.onnx", digits.calibration)
