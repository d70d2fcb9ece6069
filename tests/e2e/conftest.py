"""What the end-to-end tests share."""

from dataclasses import replace

import pytest

import ptq
from ptq.options import RunOptions


@pytest.fixture(scope="session")
def made(digits, tmp_path_factory):
    """Return the small network quantized with these settings, measured on its labelled data.

    All tests share the result and its file, which is made once: read it and leave it as it is. A
    test that breaks something on purpose, or runs twice to compare, wants `quantized`.
    """
    folder, done = tmp_path_factory.mktemp("made"), {}

    def get(**settings: object) -> ptq.Result:
        config = ptq.QuantizeConfig(**settings)
        if config not in done:
            output = folder / f"{len(done)}.onnx"
            options = RunOptions(
                output=output, evaluation=str(digits.evaluation), labels=digits.evaluation
            )
            done[config] = ptq.quantize(digits.model, digits.calibration, config, options=options)
        return done[config]

    return get


@pytest.fixture
def quantized(digits, tmp_path):
    """Quantize the small network with these settings, measured on its labelled data."""

    def run(*, options: RunOptions | None = None, **settings: object) -> ptq.Result:
        if options is None:
            options = RunOptions(evaluation=str(digits.evaluation), labels=digits.evaluation)
        options = replace(options, output=tmp_path / "quantized.onnx", force=True)
        config = ptq.QuantizeConfig(**settings)
        return ptq.quantize(digits.model, digits.calibration, config, options=options)

    return run
