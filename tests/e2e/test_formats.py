"""One command, every format, scheme and placement: what is written, and that it runs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.cli import contents, ptq

import ptq as api
from ptq.errors import ConfigError, ThresholdError
from ptq.evaluate.latency import Latency, Timing
from ptq.options import RunOptions


def outputs(path, digits):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": digits.images()[:64]})[0]


def operators(path):
    return {(n.domain, n.op_type) for n in onnx.load(path).graph.node}


def run(digits, folder, *, data=True, **settings):
    """Quantize on few samples, and measure on them: how good the result is, other tests say."""
    fields = {f: settings.pop(f) for f in ("min_speedup", "on_slower") if f in settings}
    options = RunOptions(
        output=folder / "out.onnx", force=True, samples=16 if data else None, **fields
    )
    calibration = digits.calibration if data else None
    return api.quantize(digits.model, calibration, api.QuantizeConfig(**settings), options=options)


@pytest.fixture
def slower(monkeypatch):
    """Make every result look twice as slow as the float model."""

    def timed(*_, **__):
        once, twice = Timing(1.0, 1.0, 1.0), Timing(2.0, 2.0, 2.0)
        return Latency(once, twice, 0.5, 1.0, 1.05, rounds=15, threads=1)

    monkeypatch.setattr("ptq.proof.measure_latency", timed)


def test_both_formats_are_written_and_compute_the_same(digits, tmp_path):
    report = run(digits, tmp_path, format="both").report
    assert [(o.format, o.path) for o in report.outputs] == [
        ("qdq", str(tmp_path / "out.onnx")),
        ("integer", str(tmp_path / "out.integer.onnx")),
    ]
    np.testing.assert_array_equal(
        outputs(tmp_path / "out.onnx", digits), outputs(tmp_path / "out.integer.onnx", digits)
    )
    assert ("", "QLinearConv") in operators(tmp_path / "out.integer.onnx")
    assert ("", "QLinearConv") not in operators(tmp_path / "out.onnx")
    sizes = [o.size_bytes for o in report.outputs]
    assert sizes[1] < sizes[0]


def test_an_integer_file_takes_the_name_that_is_asked_for(digits, tmp_path):
    run(digits, tmp_path, format="integer")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx"]
    assert ("", "QLinearConv") in operators(tmp_path / "out.onnx")


def test_a_second_file_that_exists_is_not_replaced(digits, tmp_path):
    (tmp_path / "out.integer.onnx").write_bytes(b"mine")
    config = api.QuantizeConfig(format="both")
    with pytest.raises(ConfigError, match=r"out\.integer\.onnx' exists"):
        api.quantize(
            digits.model,
            digits.calibration,
            config,
            options=RunOptions(output=tmp_path / "out.onnx"),
        )
    assert (tmp_path / "out.integer.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("settings", [{"scheme": "dynamic"}, {"scheme": "weight-only", "bits": 4}])
@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_schemes_without_calibration_need_no_data(digits, tmp_path, settings, form):
    result = run(digits, tmp_path, data=False, format=form, **settings)
    assert result.report.scheme == settings["scheme"]
    assert result.report.calibration is None
    found, wanted = outputs(result.output, digits), outputs(digits.model, digits)
    # measured: 14 dB with 4 bits, more than 30 with 8
    least_db = 10 if settings.get("bits") == 4 else 25
    assert 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(found - wanted)) > least_db
    assert result.report.output.size_bytes < result.report.input.size_bytes


def test_the_same_bytes_come_from_schemes_too(digits, tmp_path):
    for settings in ({"scheme": "dynamic"}, {"scheme": "weight-only", "bits": 2}):
        once = run(digits, tmp_path, data=False, **settings)
        first = once.output.read_bytes()
        run(digits, tmp_path, data=False, **settings)
        assert once.output.read_bytes() == first


def test_auto_measures_every_scheme_and_says_so(digits, tmp_path):
    report = run(digits, tmp_path, scheme="auto").report
    [said] = [n for n in report.notices if n.startswith("--scheme auto chose ")]
    assert all(f"{scheme}: " in said for scheme in ("static", "dynamic", "weight-only"))
    assert said.split()[3] == report.scheme
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx"]


def test_auto_needs_data(digits, tmp_path):
    with pytest.raises(ConfigError, match="--scheme auto measures accuracy"):
        run(digits, tmp_path, data=False, scheme="auto")


def test_only_what_is_placed_by_hand_becomes_integer(digits, tmp_path):
    plan = run(digits, tmp_path, place=("block1*",)).plan
    assert plan.integer_nodes
    assert all(name.startswith("block1") for name in plan.integer_nodes)
    assert {n.why for n in plan.nodes if not n.integer} >= {"not among --place"}


@pytest.mark.places
def test_a_measured_placement_is_reported_and_the_same_the_second_time(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setenv("PTQ_CACHE", str(tmp_path / "cache"))
    first = run(digits, tmp_path)
    placement = first.report.placement
    assert placement.mode == "auto"
    assert {"float", "all"} <= {c.name for c in placement.candidates}
    assert placement.chosen in {c.name for c in placement.candidates}
    assert all(c.measured_ms > 0 for c in placement.candidates)
    assert not placement.cached
    content = first.output.read_bytes()
    second = run(digits, tmp_path)
    # the guard may still find the choice slower on fresh runs, and keep the float model
    if second.report.placement.chosen == placement.chosen:
        assert second.output.read_bytes() == content
    assert second.report.placement.cached


@pytest.mark.places
def test_a_placement_for_another_machine_is_not_measured(digits, tmp_path):
    report = run(digits, tmp_path, target="generic-qdq").report
    assert report.placement.mode == "all"


def test_a_result_that_misses_the_threshold_leaves_nothing(digits, tmp_path):
    with pytest.raises(ThresholdError, match="--min-speedup asks for 1000x"):
        run(digits, tmp_path, min_speedup=1000.0)
    assert not list(tmp_path.iterdir())


def test_a_slower_result_is_written_and_said_unless_told_otherwise(digits, tmp_path, slower):
    report = run(digits, tmp_path, place=("all",)).report
    assert any("slower than the float one here (2.00x)" in n for n in report.notices)
    assert report.output.size_bytes < report.input.size_bytes


def test_a_slower_result_gives_way_to_the_float_model(digits, tmp_path, slower):
    for form in ("qdq", "both"):
        result = run(digits, tmp_path, on_slower="keep-float", format=form)
        for output in result.report.outputs:
            assert Path(output.path).read_bytes() == digits.model.read_bytes()
        assert result.report.placement.chosen == "float"
        assert not result.plan.integer_nodes
        assert any("the float model was written" in n for n in result.report.notices)


def test_a_slower_result_can_be_an_error(digits, tmp_path, slower):
    output = tmp_path / "q.onnx"
    arguments = ["--calib-data", digits.calibration, "--on-slower", "fail", "-o", output]
    done = ptq("quantize", digits.model, *arguments)
    assert done.code == 3
    assert "2.00x slower than the float one" in done.message
    assert not contents(tmp_path)


def test_size_alone_may_be_wanted(digits, tmp_path, slower):
    report = run(digits, tmp_path, prefer="size").report
    assert report.output.size_bytes < report.input.size_bytes
    assert report.placement.mode == "all"
