"""Models whose weights lie in files of their own, as those above 2 GB must."""

import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.cli import contents

import ptq
from ptq.graph import save
from ptq.options import RunOptions

#: Samples enough to quantize on: where the weights lie is not for them to say.
FEW = 8


@pytest.fixture
def external(digits, tmp_path):
    """The small network, with every weight in a file beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "digits.onnx"
    model = onnx.load(digits.model)
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert path.stat().st_size < 20_000
    return path


def run(path, digits):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": digits.images()[:20]})[0]


def test_external_weights_give_the_model_that_inner_ones_give(external, digits, tmp_path):
    output = tmp_path / "out.onnx"
    ptq.quantize(external, digits.calibration, options=RunOptions(output=output, samples=FEW))
    inner = tmp_path / "inner.onnx"
    ptq.quantize(digits.model, digits.calibration, options=RunOptions(output=inner, samples=FEW))
    assert onnx.load(output).graph == onnx.load(inner).graph
    assert not (tmp_path / "out.onnx.data").exists(), "small enough for one file"


def test_the_result_does_not_need_the_input(external, digits, tmp_path):
    output = tmp_path / "out.onnx"
    ptq.quantize(external, digits.calibration, options=RunOptions(output=output, samples=FEW))
    wanted = run(output, digits)
    shutil.rmtree(external.parent)
    np.testing.assert_array_equal(run(output, digits), wanted)


def test_size_and_digest_cover_the_external_file(external, digits, tmp_path):
    options = RunOptions(output=tmp_path / "a.onnx", samples=4)
    report = ptq.quantize(external, digits.calibration, options=options).report
    files = [external, external.parent / "weights.bin"]
    assert report.input.size_bytes == sum(f.stat().st_size for f in files)
    changed = bytearray(files[1].read_bytes())
    changed[0] ^= 1
    files[1].write_bytes(changed)
    options = RunOptions(output=tmp_path / "b.onnx", samples=4)
    again = ptq.quantize(external, digits.calibration, options=options).report
    assert again.input.sha256 != report.input.sha256


def test_statistics_go_stale_with_the_external_file(external, digits, tmp_path):
    stats = tmp_path / "s.npz"
    ptq.calibrate(external, digits.calibration, stats, options=RunOptions(samples=4))
    weights = external.parent / "weights.bin"
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    options = RunOptions(output=tmp_path / "o.onnx", statistics=stats)
    with pytest.raises(ptq.PtqError, match="statistics of another model"):
        ptq.quantize(external, None, options=options)


@pytest.fixture
def large(monkeypatch):
    """Make this small network too large for one file."""
    monkeypatch.setattr(save, "_LARGEST_INLINE", 10_000)


@pytest.mark.usefixtures("large")
def test_a_large_result_gets_a_data_file_that_moves_with_it(external, digits, tmp_path):
    output = tmp_path / "out.onnx"
    result = ptq.quantize(
        external, digits.calibration, options=RunOptions(output=output, samples=FEW)
    )
    data = tmp_path / "out.onnx.data"
    assert data.is_file()
    assert result.report.output.size_bytes == output.stat().st_size + data.stat().st_size
    onnx.checker.check_model(str(output))
    wanted = run(output, digits)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (output, data):
        file.rename(elsewhere / file.name)
    np.testing.assert_array_equal(run(elsewhere / "out.onnx", digits), wanted)


@pytest.mark.usefixtures("large")
def test_a_large_result_computes_what_a_small_one_does(external, digits, tmp_path, monkeypatch):
    config = ptq.QuantizeConfig(place=("all",))
    split = tmp_path / "split.onnx"
    ptq.quantize(
        external, digits.calibration, config, options=RunOptions(output=split, samples=FEW)
    )
    monkeypatch.setattr(save, "_LARGEST_INLINE", 10_000_000)
    whole = tmp_path / "whole.onnx"
    ptq.quantize(
        external, digits.calibration, config, options=RunOptions(output=whole, samples=FEW)
    )
    np.testing.assert_array_equal(run(split, digits), run(whole, digits))


@pytest.mark.usefixtures("large")
def test_two_runs_write_the_same_files(external, digits, tmp_path):
    written = []
    for _ in range(2):
        folder = tmp_path / "out"
        folder.mkdir()
        options = RunOptions(output=folder / "o.onnx", samples=FEW)
        ptq.quantize(external, digits.calibration, options=options)
        written.append(contents(folder))
        shutil.rmtree(folder)
    assert written[0] == written[1]
    assert set(written[0]) == {"o.onnx", "o.onnx.data"}


@pytest.mark.usefixtures("large")
def test_a_data_file_of_another_model_is_not_overwritten(external, digits, tmp_path):
    precious = tmp_path / "out.onnx.data"
    precious.write_text("the weights of something else")
    options = RunOptions(output=tmp_path / "out.onnx", samples=FEW)
    with pytest.raises(ptq.PtqError, match=r"out.onnx.data' exists; give --force"):
        ptq.quantize(external, digits.calibration, options=options)
    assert not options.output.exists()
    assert precious.read_text() == "the weights of something else"


def test_the_weights_of_the_input_are_never_overwritten(external, digits, tmp_path):
    before = contents(tmp_path)
    weights = external.parent / "weights.bin"
    with pytest.raises(ptq.PtqError, match="is read by this run"):
        ptq.quantize(
            external, digits.calibration, options=RunOptions(output=weights, samples=2, force=True)
        )
    with pytest.raises(ptq.PtqError, match="is read by this run"):
        ptq.calibrate(external, digits.calibration, weights, options=RunOptions(force=True))
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("large")
def test_a_failure_leaves_neither_file(external, digits, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ptq.PtqError("broken")

    monkeypatch.setattr("ptq.run.prove", broken)
    before = contents(tmp_path)
    with pytest.raises(ptq.PtqError, match="broken"):
        ptq.quantize(
            external,
            digits.calibration,
            options=RunOptions(output=tmp_path / "out.onnx", samples=FEW),
        )
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("large")
def test_force_replaces_a_split_model_by_a_split_model(external, digits, tmp_path):
    output = tmp_path / "out.onnx"
    for method in ("kl", "minmax"):
        options = RunOptions(output=output, samples=FEW, force=True)
        config = ptq.QuantizeConfig(calib=method)
        ptq.quantize(external, digits.calibration, config, options=options)
    assert np.isfinite(run(output, digits)).all()
    assert {p.name for p in tmp_path.iterdir()} == {"model", "out.onnx", "out.onnx.data"}


def test_a_link_to_the_folder_of_a_model_will_do(external, digits, tmp_path):
    (tmp_path / "link").symlink_to(external.parent)
    options = RunOptions(output=tmp_path / "o.onnx", samples=4)
    assert ptq.quantize(tmp_path / "link" / external.name, digits.calibration, options=options)


def test_every_method_reads_external_weights(external, digits, tmp_path):
    for settings in ({"calib": "qcode", "qcode_objective": "output"}, {"weight_method": "mse"}):
        options = RunOptions(output=tmp_path / "o.onnx", samples=4, force=True)
        config = ptq.QuantizeConfig(**settings)
        result = ptq.quantize(external, digits.calibration, config, options=options)
        assert result.report.weights == 13
