"""``--protect`` from the settings to the file and the report."""

import msgspec
import pytest

import ptq
from ptq.errors import ConfigError
from ptq.options import RunOptions

#: More than the digits have with every layer in integers, so that something must stay in float.
WANTED_DB = 40.0


@pytest.fixture(scope="module")
def wanted(digits, tmp_path_factory):
    """Protected digits, and what they are without."""
    results = []
    for protect in (0.0, WANTED_DB):
        options = RunOptions(
            output=tmp_path_factory.mktemp("protect") / "out.onnx",
            evaluation=str(digits.evaluation),
            seconds=0.01,
        )
        config = ptq.QuantizeConfig(place=("all",), calib="minmax", protect=protect)
        results.append(ptq.quantize(digits.model, digits.calibration, config, options=options))
    return results


def test_layers_in_float_bring_the_outputs_nearer(wanted):
    plain, found = (result.report for result in wanted)
    done = found.protection
    assert plain.protection is None
    assert done.before_db < WANTED_DB
    assert done.after_db > done.before_db
    # on other samples, and in the kernels that ship
    assert found.accuracy.sqnr_db > plain.accuracy.sqnr_db
    assert sum(plain.integer_nodes.values()) > sum(found.integer_nodes.values()) > 0
    kept = {name for group in found.float_nodes if "protected" in group.why for name in group.names}
    assert kept == {layer.name for layer in done.layers}
    assert 0 < done.work <= 0.25
    assert any("stay in float" in notice for notice in found.notices)


def test_the_recipe_in_the_file_makes_it_again_without_measuring(
    digits, wanted, tmp_path, monkeypatch
):
    made = ptq.read_recipe(wanted[1].output)

    def refuse(*given, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr("ptq.run.protect", refuse)
    options = RunOptions(output=tmp_path / "again.onnx", placement=made.placement, seconds=0.01)
    again = ptq.quantize(digits.model, digits.calibration, made.config, options=options)
    assert again.output.read_bytes() == wanted[1].output.read_bytes()


def test_outputs_that_are_near_enough_are_left_alone(digits, quantized):
    result = quantized(protect=3.0)
    assert result.report.protection is None
    assert result.report.float_nodes == quantized().report.float_nodes


def test_it_is_on_only_where_costs_decide_and_nothing_else_is_said():
    assert ptq.QuantizeConfig().protected_db > 0
    assert ptq.QuantizeConfig(place=("all",)).protected_db == 0
    assert ptq.QuantizeConfig(protect=0.0).protected_db == 0
    assert ptq.QuantizeConfig(place=("all",), protect=30.0).protected_db == 30.0


def test_it_needs_samples(digits, tmp_path):
    options = RunOptions(output=tmp_path / "out.onnx")
    config = ptq.QuantizeConfig(protect=20.0)
    with pytest.raises(ConfigError, match="--protect runs the network on real inputs"):
        ptq.quantize(digits.model, "random", config, options=options)


def test_weights_alone_have_nothing_to_protect():
    with pytest.raises(ConfigError, match="--protect means nothing to --scheme weight-only"):
        ptq.QuantizeConfig(scheme="weight-only", protect=20.0)


def test_the_report_holds_it(wanted):
    report = wanted[1].report
    again = ptq.report.Report.from_json(report.to_json(), "report.json")
    assert again.protection == report.protection
    assert msgspec.to_builtins(report.protection)["wanted_db"] == WANTED_DB
