"""``--rounding gptq`` and ``--bias-correct`` of weight-only models, from settings to the file."""

import pytest

import ptq
from ptq.embedded import read_recipe
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.weight_rounding import RoundedWeights

BOTH = {"rounding": "gptq", "bias_correct": True}


@pytest.fixture
def weight_only(digits, tmp_path):
    """Quantize the weights of the small network without timing any placement."""

    def run(name="out", *, samples=16, **settings):
        options = RunOptions(
            output=tmp_path / f"{name}.onnx", force=True, samples=samples, seconds=0.05,
            evaluation=str(digits.evaluation), threads=1,
        )  # fmt: skip
        config = ptq.QuantizeConfig(scheme="weight-only", **{"bits": 4, **settings})
        return ptq.quantize(digits.model, digits.calibration, config, options=options)

    return run


@pytest.mark.parametrize(("bits", "gain_db"), [(4, 3), (2, 3)])
def test_outputs_get_nearer_on_held_out_data(weight_only, bits, gain_db):
    plain, found = weight_only(bits=bits).report, weight_only(bits=bits, **BOTH).report
    assert found.accuracy.sqnr_db > plain.accuracy.sqnr_db + gain_db
    rounded, corrected = found.refinements
    assert (rounded.step, rounded.kept) == ("gptq", True)
    # of 16 samples, a quarter is kept out to choose on
    assert rounded.samples == corrected.samples == 12
    assert rounded.layers > 5
    assert rounded.after_db > rounded.before_db
    assert any("by gptq takes the outputs" in notice for notice in found.notices)
    # scales and codes take as many bytes as before
    assert found.output.size_bytes < plain.output.size_bytes + 4096


def test_the_recipe_in_the_model_makes_the_same_bytes(weight_only, digits, tmp_path):
    result = weight_only(**BOTH)
    recipe = read_recipe(result.output)
    assert recipe.data_sha256 is not None
    assert recipe.samples == 16
    again = RunOptions(
        output=tmp_path / "again.onnx", samples=16, placement=recipe.placement, threads=2,
        seconds=0.05,
    )  # fmt: skip
    ptq.quantize(digits.model, digits.calibration, recipe.config, options=again)
    assert (tmp_path / "again.onnx").read_bytes() == result.output.read_bytes()


def test_what_does_harm_is_not_done(weight_only, monkeypatch):
    plain = weight_only().output.read_bytes()
    monkeypatch.setattr(
        "ptq.weight_rounding.WeightRounder.round",
        lambda self, *_, **__: RoundedWeights(
            {},
            {
                y.node: 1e3 + 0 * y.array.reshape(y.array.shape[0], -1)[:, 0]
                for y in self.layers
                if y.axis == 0
            },
        ),
    )
    result = weight_only(rounding="gptq")
    [done] = result.report.refinements
    assert not done.kept
    assert len(result.output.read_bytes()) - len(plain) < 200  # the recipe says more


@pytest.mark.parametrize("settings", [{"rounding": "gptq"}, {"bias_correct": True}])
def test_it_needs_samples(digits, tmp_path, settings):
    config = ptq.QuantizeConfig(scheme="weight-only", bits=4, **settings)
    options = RunOptions(output=tmp_path / "out.onnx")
    with pytest.raises(ConfigError, match="runs the network; give --calib-data"):
        ptq.quantize(digits.model, None, config, options=options)
    assert not (tmp_path / "out.onnx").exists()
