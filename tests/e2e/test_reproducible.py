"""The same inputs give the same bytes; different ones do not."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.cli import command, environment

import ptq
from ptq.options import RunOptions


@pytest.fixture
def bytes_of(digits, tmp_path):
    """Return the bytes of the small network quantized so."""

    def quantize(calibration=digits.calibration, model=digits.model, **settings):
        run = {n: settings.pop(n) for n in ("threads", "statistics", "samples") if n in settings}
        options = RunOptions(output=tmp_path / "out.onnx", force=True, **run)
        config = ptq.QuantizeConfig(**settings)
        return ptq.quantize(model, calibration, config, options=options).output.read_bytes()

    return quantize


@pytest.mark.parametrize("method", ["kl", "mse", "ema", "percentile", "qcode"])
def test_neither_time_nor_threads_change_the_bytes(bytes_of, method):
    once = bytes_of(calib=method, threads=1, samples=32)
    for threads in (1, 2, 3):
        assert bytes_of(calib=method, threads=threads, samples=32) == once


def test_the_output_search_is_reproducible(bytes_of):
    settings = {"calib": "qcode", "qcode_objective": "output", "samples": 32}
    assert bytes_of(threads=1, **settings) == bytes_of(threads=2, **settings)


def test_other_processes_with_other_hash_seeds_write_the_same_bytes(digits, tmp_path):
    written = set()
    for seed in ("0", "1", "77"):
        output = tmp_path / f"{seed}.onnx"
        subprocess.run(
            command("quantize", digits.model, "--calib-data", digits.calibration, "-o", output),
            check=True,
            capture_output=True,
            env=environment(PYTHONHASHSEED=seed, TZ=f"UTC+{int(seed) % 12}"),
        )
        written.add(output.read_bytes())
    assert len(written) == 1


def test_the_place_of_model_and_data_does_not_matter(digits, tmp_path, bytes_of):
    elsewhere = tmp_path / "somewhere else"
    elsewhere.mkdir()
    model, data = elsewhere / "m.onnx", elsewhere / "d.npz"
    model.write_bytes(digits.model.read_bytes())
    data.write_bytes(digits.calibration.read_bytes())
    assert bytes_of(data, model) == bytes_of()


def test_the_container_of_the_data_does_not_matter(digits, tmp_path, bytes_of):
    folder = tmp_path / "arrays"
    folder.mkdir()
    with np.load(digits.calibration) as arrays:
        for i, image in enumerate(arrays["input"]):
            np.savez(folder / f"{i:03}.npz", input=image[None])
    assert bytes_of(folder) == bytes_of()


@pytest.fixture(scope="module")
def stats(digits, tmp_path_factory):
    """The statistics of all calibration data."""
    path = tmp_path_factory.mktemp("stats") / "stats.npz"
    ptq.calibrate(digits.model, digits.calibration, path)
    return path


@pytest.mark.parametrize("method", ["kl", "mse", "minmax", "ema", "scale", "percentile", "qcode"])
def test_statistics_stand_for_the_data(bytes_of, stats, method):
    # what keeps layers in float runs the network, and statistics cannot
    settings = {"calib": method, "protect": 0.0}
    assert bytes_of(None, statistics=stats, **settings) == bytes_of(**settings)


def test_statistics_may_be_of_more_than_is_quantized(digits, tmp_path, stats):
    """Bytes may differ: which tensors are tapped decides which float kernels are fused."""
    config = ptq.QuantizeConfig(exclude=("block1.*",))
    scales = []
    for data, statistics in ((None, stats), (digits.calibration, None)):
        options = RunOptions(output=tmp_path / "out.onnx", force=True, statistics=statistics)
        tensors = ptq.quantize(digits.model, data, config, options=options).report.tensors
        scales.append({t.name: t.scale for t in tensors})
    assert scales[0].keys() == scales[1].keys()
    # float32 sums in another order
    np.testing.assert_allclose(*[list(s.values()) for s in scales], rtol=1e-5)


def test_every_setting_that_matters_is_in_the_bytes(bytes_of):
    variants = [
        {},
        {"calib": "mse"},
        {"weight_method": "mse"},
        {"weights": "per-tensor"},
        {"weights_symmetric": False},
        {"symmetric": True},
        {"exclude": ("stem.*",)},
        {"op_types": ("Conv",)},
        {"samples": 64},
    ]
    assert len({bytes_of(**variant) for variant in variants}) == len(variants)


def test_nothing_machine_dependent_is_written(digits, tmp_path, bytes_of):
    content = bytes_of()
    for text in (str(tmp_path), os.getcwd(), sys.executable, "x86_64", str(digits.model.parent)):  # noqa: PTH109
        assert text.encode() not in content
