"""Real pretrained models on real data: no worse than onnxruntime's own quantizer (minutes)."""

from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.cli import contents

import ptq
from ptq.options import RunOptions

pytestmark = [
    pytest.mark.slow,
    # of the zoo's own reading of files
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: SQNR in dB of what onnxruntime 1.31's quantize_static makes of the same model and data, as
#: benchmarks/ measures it: U8S8, per channel, MinMax, after its own pre-processing.
STOCK_DB = {
    "effnet_lite0": 17.80,
    "fm_mbv2": 31.67,
    "esrgan_slim_x2": 41.95,
    "ppocr_rec": 11.09,
    # the least of seven: two probabilities that saturate, 24 to 33 dB by the number of samples
    "ppocr_cls": 23.99,
    "layout_picodet": 9.24,
    "nsnet2_gru": 28.29,
    "minilm_l6": 0.43,
}

#: Evaluation samples: enough for a mean within a few tenths of a decibel.
EVALUATED = 100


def feeds(folder: Path, given) -> Path:
    """Write feeds as a folder of .npz files, as a user would have them."""
    folder.mkdir()
    for i, feed in enumerate(given):
        np.savez(folder / f"{i:05}.npz", **feed)
    return folder


def quantize(entry, tmp_path: Path, **settings) -> ptq.Result:
    model = Path(entry.onnx)
    if not model.is_file():
        pytest.skip(f"{model} is not there; run `python zoo.py fetch` in the zoo's folder")
    calibration = feeds(tmp_path / "calib", entry.calib())
    evaluation = feeds(tmp_path / "eval", (f for f, _ in islice(entry.evalset(), EVALUATED)))
    options = RunOptions(
        output=tmp_path / "out.onnx", evaluation=str(evaluation), threads=2, samples=128
    )
    return ptq.quantize(model, calibration, ptq.QuantizeConfig(**settings), options=options)


@pytest.mark.parametrize("name", STOCK_DB)
def test_a_real_model_is_no_worse_than_with_onnxruntime(zoo, name, tmp_path):
    result = quantize(zoo[name], tmp_path)
    report = result.report
    onnx.checker.check_model(str(result.output))
    assert report.accuracy.sqnr_db >= STOCK_DB[name]
    assert report.output.size_bytes < report.input.size_bytes
    assert sum(report.ran_integer.values()) > 0
    assert not [n for n in report.notices if "runs in float what was to be integer" in n]


def test_a_model_that_stock_onnxruntime_cannot_load_loads_and_is_protected(zoo, tmp_path):
    """Its constant-Q transform has a range that 8 bits do not hold: it stays in float."""
    result = quantize(zoo["basic_pitch"], tmp_path, place=("all",), protect=20.0)
    assert result.report.accuracy.sqnr_db > 15  # 6 with everything in integers
    assert result.report.ran_integer["QLinearConv"] > 0
    assert result.report.protection.layers


def test_a_model_with_all_its_work_in_subgraphs_is_refused(zoo, tmp_path):
    before = contents(tmp_path)
    with pytest.raises(ptq.PtqError, match="If: subgraphs are left in float"):
        ptq.quantize(
            zoo["silero_vad"].onnx, "random", options=RunOptions(output=tmp_path / "out.onnx")
        )
    assert contents(tmp_path) == before
