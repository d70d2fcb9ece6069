"""``--bits mixed``: widths within a budget, as overrides of an ordinary recipe."""

import msgspec
import pytest
from support.cli import ptq as command

import ptq
from ptq.errors import ConfigError, ThresholdError
from ptq.options import RunOptions, WidthBudget
from ptq.weights import weight_quantizer


@pytest.fixture
def mixed(quantized):
    """Quantize with widths within this budget."""

    def run(*, settings=None, **budget):
        options = RunOptions(samples=16, widths=WidthBudget(**budget))
        given = {"weights_symmetric": False, "place": ("all",), **(settings or {})}
        return quantized(options=options, **given)

    return run


def mean_bits(report):
    widths = report.weight_bits
    return sum(bits * count for bits, count in widths.items()) / sum(widths.values())


def test_a_mean_is_kept_and_beats_one_width_of_more(mixed, quantized):
    found = mixed(mean_bits=4.5).report
    assert 4.4 < mean_bits(found) <= 4.5
    few = RunOptions(samples=16)
    alike = quantized(options=few, bits=5, edge_bits=5, weights_symmetric=False, place=("all",))
    assert mean_bits(alike.report) == 5
    assert found.accuracy.sqnr_db > alike.report.accuracy.sqnr_db
    assert any("widths were chosen for 11 layers" in notice for notice in found.notices)


def test_a_file_is_no_larger_than_asked_for(mixed):
    report = mixed(size_bytes=58_000).report
    assert 55_000 < report.output.size_bytes <= 58_000


def test_an_accuracy_is_reached_with_less_than_eight_bits(mixed):
    report = mixed(sqnr_db=17.0).report
    # the samples of the promise are a part of those that the report measures on
    assert report.accuracy.sqnr_db == pytest.approx(17, abs=3)
    assert mean_bits(report) < 5
    assert any("dB on 8 samples kept out" in notice for notice in report.notices)


def test_the_result_is_an_ordinary_recipe_beside_what_was_held(mixed, quantized):
    held = (ptq.Override(match="head.conv", bits=7), ptq.Override(match="dense.conv", float=True))
    result = mixed(mean_bits=6, settings={"overrides": held, "bias_correct": True})
    written = result.output.read_bytes()
    made = ptq.read_recipe(result.output)
    assert made.config.bits == 8
    assert made.config.overrides[-2:] == held
    chosen = made.config.overrides[:-2]
    assert {o.bits for o in chosen} <= {3, 4, 5, 6}
    # what is held, and the first layer, are none of those that have a choice
    assert not {o.match for o in chosen} & {f"{n}.weight" for n in ("head.conv", "stem.conv")}
    settings = {f: getattr(made.config, f) for f in made.config.__struct_fields__}
    again = quantized(options=RunOptions(samples=16, placement=made.placement), **settings)
    assert again.output.read_bytes() == written


def test_clipq_has_a_share_of_zeros_for_each_layer_and_counts_coded_bits(mixed):
    result = mixed(mean_bits=3.5, settings={"weight_method": "clipq"})
    coding = result.report.weight_coding
    # what is held at 8 bits counts as 8, and codes of those take no more
    assert 3.2 < coding.entropy_bits <= 3.5
    assert mean_bits(result.report) > 3.5
    made = ptq.read_recipe(result.output).config
    assert (made.bits, made.weight_method) == (8, "clipq")
    made.require_known()
    methods = {o.weight_method for o in made.overrides}
    assert len(methods) > 1
    assert methods <= set(weight_quantizer("clipq").menu())


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"mean_bits": 2.5}, r"--mean-bits 2\.5 is less than 3 bits"),
        ({"sqnr_db": 90.0}, "--min-sqnr 90 is more than 8 bits in every layer"),
    ],
)
def test_budgets_that_cannot_be_kept(mixed, budget, message):
    with pytest.raises(ConfigError, match=message):
        mixed(**budget)


def test_layers_in_float_count_towards_the_size(mixed, monkeypatch):
    # as where a placement by cost leaves layers in float that the search had in integers
    monkeypatch.setattr("ptq.widths.model_size", lambda path: 20_000)
    with pytest.raises(ThresholdError, match="more than --max-size 50000"):
        mixed(size_bytes=50_000)


def test_one_budget_is_needed_and_no_other_scheme_has_it(digits):
    for budget in ({}, {"mean_bits": 5.0, "sqnr_db": 20.0}):
        with pytest.raises(ConfigError, match="just one of --max-size"):
            WidthBudget(**budget)
    options = RunOptions(widths=WidthBudget(mean_bits=5))
    with pytest.raises(ConfigError, match="--bits mixed is of --scheme static"):
        ptq.quantize(digits.model, None, ptq.QuantizeConfig(scheme="dynamic"), options=options)


def test_the_command_names_the_file_and_reads_sizes(digits, tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(digits.model.read_bytes())
    data = ("--calib-data", digits.calibration, "--samples", 16, "--bits", "mixed")
    done = command("quantize", model, *data, "--max-size", "0.06MB", "--place", "all")
    assert done.code == 0, done.err
    written = tmp_path / "m.mixed.onnx"
    assert 40_000 < written.stat().st_size <= 60_000
    assert not ptq.read_recipe(written).config.weights_symmetric


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "mixed"), "--bits mixed needs just one of"),
        (("--mean-bits", 5), "--mean-bits needs --bits mixed"),
        (("--bits", "mixed", "--max-size", "big"), "big is no size"),
        (("--bits", "mixed", "--mean-bits", 5, "--dry-run"), "leave out --dry-run"),
    ],
)
def test_options_that_do_not_fit(digits, options, message):
    done = command("quantize", digits.model, "--calib-data", digits.calibration, *options)
    assert done.code == 2
    assert message in done.message


def test_weight_only_layers_have_widths_of_their_own_too(digits, tmp_path):
    held = (ptq.Override(match="head.conv", bits=8),)
    config = ptq.QuantizeConfig(scheme="weight-only", overrides=held, allow_larger=True)
    made = {}
    for name, settings, widths in (
        ("alike", {"bits": 4, "overrides": ()}, None),
        ("mixed", {}, WidthBudget(mean_bits=4)),
    ):
        options = RunOptions(
            output=tmp_path / f"{name}.onnx", samples=16, widths=widths, seconds=0.05,
            evaluation=str(digits.evaluation),
        )  # fmt: skip
        changed = msgspec.structs.replace(config, **settings)
        made[name] = ptq.quantize(digits.model, digits.calibration, changed, options=options)
    found = made["mixed"].report
    assert any("widths were chosen for" in notice for notice in found.notices)
    assert found.accuracy.sqnr_db > made["alike"].report.accuracy.sqnr_db
    overrides = ptq.read_recipe(made["mixed"].output).config.overrides
    assert overrides[-1] == held[0]
    assert len({o.bits for o in overrides[:-1]}) > 1
    assert "head.conv.weight" not in {o.match for o in overrides}
