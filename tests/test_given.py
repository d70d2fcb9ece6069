"""What a trained network brings, weights and decisions, ends up in the file and in the plan."""

import msgspec
import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from ptq.config import QuantizeConfig
from ptq.data import open_dataset
from ptq.inputs import Inputs
from ptq.numerics.affine import QTensor
from ptq.progress import Stages
from ptq.refining import Refined
from ptq.runtime.host import host_target
from ptq.source import open_source
from ptq.work import Work


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_what_is_given_is_written(digits, tmp_path, form):
    source = open_source(digits.model)
    data = open_dataset(str(digits.calibration), source.inputs, samples=4)
    config = QuantizeConfig(calib="minmax", place=("all",), target=host_target())
    work, path = Work(source, Inputs(data), config, Stages(), threads=1), tmp_path / "a.onnx"
    before = work.write(path, form)
    planned = before.plan.tensors["input"]
    weight = work.emitted(before)[1].tensors["stem.conv.weight"]
    given = QTensor(np.ones_like(weight.codes), weight.qparams)
    decided = msgspec.structs.replace(planned, qtype="uint4", zero_point=3, decode=0.125)
    work.refined[frozenset()] = Refined(
        given={"stem.conv.weight": given}, decisions={"input": decided}
    )
    after = work.write(path, form)
    assert after.plan.tensors["input"] == decided
    assert after.coverage.unfused == ()
    written = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    assert np.all(written["stem.conv.weight/quantized"] == 1)
    assert written["input/scale"] == np.float32(planned.scale)
    assert written["input/decode_scale"] == np.float32(0.125)
