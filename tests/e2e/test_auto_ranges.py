"""`--calib auto` on a trained network: what it chooses, says, and writes again."""

import numpy as np
import pytest

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions
from ptq.ranging import CANDIDATES


@pytest.fixture
def run(digits, tmp_path):
    def quantize(name="auto.onnx", config=None, **options):
        config = config or ptq.QuantizeConfig(calib="auto:trials=12")
        options = RunOptions(output=tmp_path / name, force=True, **options)
        return ptq.quantize(digits.model, digits.calibration, config, options=options)

    return quantize


def test_it_takes_the_best_of_the_candidates_and_says_so(run, digits):
    found = run(samples=32, evaluation=str(digits.evaluation), labels=digits.evaluation)
    search = found.report.range_search
    assert tuple(c.method for c in search.candidates) == CANDIDATES
    best = max(search.candidates, key=lambda c: (c.samples, c.sqnr_db))
    [chosen] = [c for c in search.candidates if c.method == search.chosen]
    # the first of those that cannot be told apart
    assert best.sqnr_db - 1 < chosen.sqnr_db <= min(best.sqnr_db, search.sqnr_db)
    assert (search.samples, search.held_out) == (16, True)
    assert search.trials <= 12
    [notice] = [n for n in found.report.notices if "--calib auto chose" in n]
    assert f"chose {chosen.method}: {chosen.sqnr_db:.1f} dB on 16 held-out samples" in notice
    accuracy = found.report.accuracy
    # 36.3 is what the best of the methods has with 128 samples; less half a bit
    assert accuracy.sqnr_db >= 33.2
    assert 100 * (accuracy.float_top1 - accuracy.quantized_top1) <= 1.5
    assert "search" in found.report.stages_s


def test_the_ranges_are_those_of_the_chosen_method_from_all_samples(run):
    found = run(samples=32).report
    search = found.range_search
    alone = run("alone.onnx", ptq.QuantizeConfig(calib=search.chosen), samples=32).report
    assert found.calibration == alone.calibration
    other = {t.name: (t.lo, t.hi) for t in alone.tensors}
    for tensor in found.tensors:
        if tensor.name not in search.tensors:
            assert (tensor.lo, tensor.hi) == other[tensor.name]


@pytest.mark.slow
def test_threads_and_placements_change_nothing(run):
    once = run(samples=24, threads=1)
    kept = ptq.PinnedPlacement(keep_float=("dense.conv",))
    assert run("threads.onnx", samples=24, threads=3).report.range_search == (
        once.report.range_search
    )
    placed = run("placed.onnx", samples=24, placement=kept).report
    assert placed.range_search == once.report.range_search


def test_the_recipe_in_the_model_makes_it_again(run):
    once = run(samples=24).output
    recipe = ptq.read_recipe(once)
    assert recipe.config.calib == "auto:trials=12"
    again = run(
        "again.onnx", recipe.config, samples=recipe.samples, placement=recipe.placement
    ).output
    assert again.read_bytes() == once.read_bytes()


def test_few_samples_are_not_split_and_that_is_said(run):
    report = run(samples=5).report
    assert not report.range_search.held_out
    assert report.range_search.samples == 5
    assert any("with at least 8 samples to choose on others" in n for n in report.notices)


def test_an_override_is_not_searched(run):
    overrides = (ptq.Override(match="head.conv", calib="scale:shrink=0.3"),)
    config = ptq.QuantizeConfig(calib="auto", overrides=overrides, protect=0.0)
    report = run(config=config, samples=16).report
    # the Relu behind it is part of it
    [tensor] = [t for t in report.tensors if "head" in t.name]
    assert tensor.name not in report.range_search.tensors
    assert tensor.hi == pytest.approx(0.3 * tensor.observed_max, rel=1e-3)


def test_it_is_for_a_whole_model_only(run):
    overrides = (ptq.Override(match="head.conv", calib="auto"),)
    with pytest.raises(ConfigError, match="chooses for a whole model; name a method"):
        run(config=ptq.QuantizeConfig(overrides=overrides))


def test_statistics_alone_are_not_enough(digits, run, tmp_path):
    stats = tmp_path / "stats.npz"
    ptq.calibrate(digits.model, digits.calibration, stats)
    options = RunOptions(output=tmp_path / "o.onnx", statistics=stats)
    config = ptq.QuantizeConfig(calib="auto:trials=0")
    with pytest.raises(ConfigError, match="--calib auto:trials=0 runs the network; give --calib-"):
        ptq.quantize(digits.model, None, config, options=options)
    with_data = run(config=config, statistics=stats)
    assert with_data.report.range_search.held_out
    assert with_data.output.read_bytes() == run("b.onnx", config).output.read_bytes()


def test_outputs_of_integers_leave_nothing_to_choose_by(tmp_path):
    from support.models import parse, write

    model = write(
        tmp_path / "m.onnx",
        parse(
            """g (float[1, 4, 8, 8] x) => (int64[N, D, H, W] y) <float[16, 4, 3, 3] w> {
            t = Conv (x, w) y = ArgMax <axis = 1> (t) }"""
        ),
    )
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(8, 4, 8, 8)))
    config = ptq.QuantizeConfig(calib="auto", place=("all",), allow_larger=True)
    with pytest.raises(ptq.PtqError, match="no floating-point output"):
        ptq.quantize(model, str(tmp_path / "d.npz"), config)


def test_lapq_chooses_a_norm_and_says_so(run):
    found = run(config=ptq.QuantizeConfig(calib="lapq:trials=4"), samples=32).report
    search = found.range_search
    assert search.chosen.startswith("lp:norm=")
    assert {c.method for c in search.candidates} >= {"lp:norm=2", "lp:norm=4"}
    assert search.sqnr_db >= max(c.sqnr_db for c in search.candidates)
    assert (search.samples, search.held_out) == (16, True)
    [notice] = [n for n in found.notices if "--calib lapq chose" in n]
    assert f"chose {search.chosen}: " in notice


def test_pact_turns_single_ends_and_says_so(run):
    config = ptq.QuantizeConfig(activation_bits=2, calib="pact:by=output,trials=30", place=("all",))
    found = run(config=config, samples=32).report
    search = found.range_search
    assert (search.chosen, search.trials) == ("pact", 30)
    assert all(m.startswith("pact:factor=") for m in search.tensors.values())
    assert search.sqnr_db >= search.candidates[0].sqnr_db
    assert any(n.startswith("--calib pact chose pact: ") for n in found.notices)
    [notice] = [n for n in found.notices if "tensors of one sign" in n]
    assert notice.endswith("were clipped at both ends")
