"""Made-up inputs are changed until batch normalizations find what they hold (ZeroQ)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ptq import QuantizeConfig, RunOptions, quantize
from ptq.datafree import made_up
from ptq.errors import ConfigError, UnsupportedError
from ptq.runtime.session import open_session, run
from ptq.source import open_source
from ptq.train.distill import Distiller

MODEL = Path(__file__).resolve().parent.parent / "models" / "digits_cnn.onnx"


@cache
def fitted():
    source = open_source(MODEL)
    config = QuantizeConfig(data_free=True, calib="minmax", target="ort-cpu-x86-avx2")
    feed = next(iter(made_up(source, config, 1)))
    distiller = Distiller(source.model, source.normals, feed, "input", source.folder)
    return source, distiller, feed, distiller.fit(feed, 40)


def test_statistics_come_near_those_of_the_batchnorms() -> None:
    _, distiller, before, after = fitted()
    assert distiller.loss(after) < 0.25 * distiller.loss(before)


def test_the_loss_is_that_of_the_tensors_themselves() -> None:
    from ptq.graph.channel_taps import with_outputs

    source, distiller, feed, _ = fitted()
    names = list(source.normals)
    session = open_session(with_outputs(source.model, names), folder=source.folder)
    terms = []
    for name, found in zip(names, run(session, feed, names), strict=True):
        axes, normal = tuple(i for i in range(found.ndim) if i != 1), source.normals[name]
        kept = normal.std > 1e-3 * normal.std.max()
        errors = ((found.mean(axes) - normal.mean) / normal.std) ** 2
        errors += ((found.std(axes) - normal.std) / normal.std) ** 2
        terms.append(errors[kept].mean())
    assert distiller.loss(feed) == pytest.approx(np.mean(terms), rel=1e-3)


def test_the_same_start_gives_the_same_bytes() -> None:
    _, distiller, feed, after = fitted()
    np.testing.assert_array_equal(distiller.fit(feed, 40)["input"], after["input"])


def test_statistics_that_there_are_none_of_cannot_be_fitted() -> None:
    source, _, feed, _ = fitted()
    with pytest.raises(UnsupportedError, match="batch normalization"):
        Distiller(source.model, {}, feed, "input", source.folder)


def test_a_network_is_trained_without_data(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ptq.datafree._DISTILLING", 20)
    config = QuantizeConfig(
        data_free=True, distill=True, calib="minmax", bits=3, fine_tune="pact", steps=10
    )
    options = RunOptions(output=tmp_path / "q.onnx", samples=8, seconds=0.01, threads=1)
    report = quantize(MODEL, None, config, options=options).report
    assert report.data_free is not None
    assert report.data_free.distilled
    assert [step.step for step in report.refinements][-1] == "fine-tuning"


def test_it_is_of_made_up_inputs() -> None:
    with pytest.raises(ConfigError, match="--data-free"):
        QuantizeConfig(distill=True)
