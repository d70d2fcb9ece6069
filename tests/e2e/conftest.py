"""What the end-to-end tests share."""

from dataclasses import replace

import pytest

import ptq
from ptq.options import RunOptions


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
