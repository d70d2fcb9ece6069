"""The small trained network, from quantization to the integer file that users load."""

import numpy as np
import onnxruntime as ort
import pytest
from support.integer import fuse_model
from support.nets import ORDINARY, prepare, quantize

from ptq.graph.load import load_model
from ptq.graph.save import save_model
from ptq.runtime.coverage import measure_coverage


@pytest.fixture(scope="module")
def digits_pair(digits):
    """Return the network quantized as by default, before and after fusing."""
    with np.load(digits.calibration) as arrays:
        feed = {"input": arrays["input"]}
    quantized = quantize(prepare(load_model(digits.model)), feeds=[feed], settings=ORDINARY)
    return quantized, fuse_model(quantized.model)


def test_the_integer_file_computes_what_onnxruntime_makes_of_the_qdq_file(
    digits_pair, digits, tmp_path
):
    quantized, pair = digits_pair
    feed = {"input": digits.images()}
    outputs = []
    for name, model in (("qdq", pair.qdq), ("integer", pair.integer)):
        path = tmp_path / f"{name}.onnx"
        save_model(model, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, feed)[0])
    np.testing.assert_array_equal(*outputs)
    assert np.mean(outputs[1].argmax(1) == digits.labels()) > 0.9
    assert measure_coverage(tmp_path / "integer.onnx", quantized.site_names).unfused == ()
    assert (tmp_path / "integer.onnx").stat().st_size < (tmp_path / "qdq.onnx").stat().st_size


def test_nothing_of_it_is_left_in_float(digits_pair):
    _, pair = digits_pair
    assert pair.fused.left == ()
    assert pair.fused.conversions == 1  # the input; what comes out is float
