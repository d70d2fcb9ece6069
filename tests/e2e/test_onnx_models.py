"""The models that the onnx package ships: quantized and loadable, or refused with a reason.

onnx/backend/test/data holds 140 small ones (``simple``, ``pytorch-operator``,
``pytorch-converted``) and 9 networks whose weights are made up (``light``). The other test models
of onnx, one for each operator and case, are generated when its tests run and are in no package.
"""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import ptq
from ptq.errors import UnsupportedError
from ptq.options import RunOptions

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SMALL = sorted(p for p in DATA.rglob("*.onnx") if p.parent.parent.name != "data")
LIGHT = sorted((DATA / "light").glob("*.onnx"))

#: What becomes integer: everything with a constant weight that onnxruntime has a kernel for.
QUANTIZED = {
    *(f"test_Conv1d{s}" for s in ("", "_dilated", "_groups", "_pad1", "_pad1size1", "_pad2")),
    *("test_Conv1d_pad2size1", "test_Conv1d_stride", "test_Conv2d", "test_Conv2d_no_bias"),
    *(f"test_Conv2d_{s}" for s in ("dilated", "groups", "groups_thnn", "padding", "strided")),
    *("test_Conv2d_depthwise", "test_Conv2d_depthwise_padded", "test_Conv2d_depthwise_strided"),
    *("test_Conv2d_depthwise_with_multiplier", "test_Conv3d", "test_Conv3d_no_bias"),
    *(f"test_Conv3d_{s}" for s in ("dilated", "dilated_strided", "groups", "stride")),
    *("test_Conv3d_stride_padding", "test_Linear", "test_Linear_no_bias", "test_operator_conv"),
}

#: Sound reasons to refuse the others.
REASONS = (
    r"^nothing in 'model.onnx' can be quantized for target 'ort-cpu-\S+' \((\d+ \w+: .+)+\)",
    r"node '.*' \(PRelu\) has a slope per channel and cannot be converted to opset 21",
)


def test_the_package_ships_what_this_file_says():
    assert len(SMALL) == 140
    assert len(LIGHT) == 9
    assert {p.parent.name for p in SMALL} >= QUANTIZED


@pytest.mark.parametrize("path", SMALL, ids=lambda p: p.parent.name)
def test_a_small_model_is_quantized_or_refused_with_a_reason(path, tmp_path):
    output = tmp_path / "out.onnx"
    config = ptq.QuantizeConfig(allow_larger=True)
    options = RunOptions(output=output, samples=4)
    if path.parent.name in QUANTIZED:
        result = ptq.quantize(path, "random", config, options=options)
        # one layer of 8 bits on normal data: about 39 dB
        assert result.report.accuracy.sqnr_db > 33
        assert_runs(output)
        return
    with pytest.raises(UnsupportedError) as refusal:
        ptq.quantize(path, "random", config, options=options)
    assert any(re.search(reason, str(refusal.value)) for reason in REASONS), refusal.value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", SMALL, ids=lambda p: p.parent.name)
def test_a_small_model_is_inspected_or_refused(path):
    try:
        found = ptq.inspect(path)
    except UnsupportedError as error:
        assert "PRelu" in str(error)
        return
    assert len(found.nodes) == sum(found.operators.values())
    assert all(node.integer or node.why for node in found.nodes)


@pytest.mark.slow
@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_a_network_of_made_up_weights_is_quantized_or_refused(path, tmp_path):
    """Their weights are of one value, so that the outputs are exact or the weights not known."""
    options = RunOptions(output=tmp_path / "out.onnx", samples=2)
    config = ptq.QuantizeConfig(allow_larger=True)
    try:
        result = ptq.quantize(path, "random", config, options=options)
    except UnsupportedError as error:
        assert "the weight is not constant" in str(error)
        return
    sqnr_db = result.report.accuracy.sqnr_db
    assert sqnr_db is None or sqnr_db > 33, "exact, or 8 bits of one layer"
    assert_runs(result.output)


def assert_runs(path: Path) -> None:
    """Check that a model loads, and gives numbers for an input of halves."""
    onnx.checker.check_model(str(path), full_check=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {
        value.name: np.full([d if isinstance(d, int) else 1 for d in value.shape], 0.5, np.float32)
        for value in session.get_inputs()
    }
    for output in session.run(None, feed):
        assert np.isfinite(output).all()
