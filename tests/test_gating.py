"""Gates apart on request: chosen by the error, reported, and known to who compares."""

import numpy as np
import onnx_ir as ir
import pytest
from support.models import parse, run, write

import ptq
from ptq.data import open_dataset
from ptq.gating import gate_factors
from ptq.graph.rescale.apply import decode
from ptq.graph.rescale.record import Rescaling, read_rescaling
from ptq.inputs import Inputs
from ptq.options import RunOptions
from ptq.progress import Stages
from ptq.source import open_source
from ptq.transforming import transformed

SPLIT = ptq.QuantizeConfig(split_gates=True, target="ort-cpu-x86-vnni", place=("all",))

#: Channel i of the first block is 4^-i as large as channel 0, and the depthwise weights make it up.
SPREAD = 4.0 ** -np.arange(4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    weights = {
        "w": (rng.standard_normal((4, 3, 1, 1)) * 8 * SPREAD.reshape(4, 1, 1, 1)),
        "b": 2 * SPREAD,
        "v": rng.standard_normal((4, 1, 3, 3)) / SPREAD.reshape(4, 1, 1, 1),
        "u": rng.standard_normal((5, 4, 1, 1)) / 8,
    }
    text = """
        g (float[N, 3, 8, 8] x) => (float[N, 5, 6, 6] y)
        <float[4,3,1,1] w, float[4] b, float[4,1,3,3] v, float[5,4,1,1] u> {
          t = Conv (x, w, b)
          h = HardSwish (t)
          d = Conv <group = 4> (h, v)
          s = HardSwish (d)
          y = Conv (s, u)
        }"""
    folder = tmp_path_factory.mktemp("gates")
    model = parse(text, {name: array.astype(np.float32) for name, array in weights.items()})
    for name in ("calib", "eval"):
        np.savez(folder / f"{name}.npz", x=rng.standard_normal((16, 3, 8, 8)).astype(np.float32))
    return write(folder / "m.onnx", model)


@pytest.fixture(scope="module")
def source(path):
    return open_source(path)


@pytest.fixture(scope="module")
def inputs(path, source):
    return Inputs(open_dataset(path.with_name("calib.npz"), source.inputs))


def test_factors_follow_the_sizes_of_channels(source, inputs):
    [(name, text)] = gate_factors(source, inputs.calibration, Stages(), threads=1).items()
    factors = decode(text)
    assert name == "h"
    # from 16 codes to 1 of what the widest has; what is below -3 does not count
    assert (np.diff(factors) < 0).all()
    assert factors[0] / factors[3] > 8


def test_on_the_data_that_was_seen_the_function_stays(source, inputs):
    factors = gate_factors(source, inputs.calibration, Stages(), threads=1)
    changed = Rescaling(gated=factors, cut=True).apply(source.model)
    feed = {"x": np.concatenate([feed["x"] for feed in inputs.calibration])}
    [before], [after] = run(source.model, feed), run(changed, feed)
    # weights and some dozen products rounded once more
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


def test_the_error_falls_and_the_report_says_what_was_done(path, tmp_path):
    found = {}
    for split in (False, True):
        options = RunOptions(
            output=tmp_path / f"{split}.onnx", evaluation=path.with_name("eval.npz"), force=True
        )
        config = ptq.QuantizeConfig(split_gates=split, place=("all",), allow_larger=True)
        found[split] = ptq.quantize(path, path.with_name("calib.npz"), config, options=options)
    plain, split = (found[s].report for s in (False, True))
    assert split.accuracy.sqnr_db > plain.accuracy.sqnr_db + 3
    assert any(line.startswith("gates: 1 of 2 computed apart") for line in split.prepared)
    assert not any(line.startswith("gates") for line in plain.prepared)
    written = read_rescaling(ir.load(found[True].output))
    assert written.cut
    assert list(written.gated) == ["h"]
    compared = ptq.compare(path, found[True].output, path.with_name("eval.npz"))
    assert all(layer.sqnr_db > 15 for layer in compared.layers if layer.sqnr_db is not None)


@pytest.mark.parametrize(
    ("errors", "apart", "cut"),
    [
        ([1.0, 0.95, 0.94], 0, False),  # not a tenth less
        ([1.0, 0.5, 0.45], 0, True),  # within 1 dB: as few as can be
        ([1.0, 0.5, 0.3], 1, True),
        ([1.0, 1.5, 0.3], 1, True),
    ],
)
def test_as_few_gates_are_apart_as_the_error_allows(
    source, inputs, monkeypatch, errors, apart, cut
):
    given = iter(errors)
    monkeypatch.setattr("ptq.transforming.Work.error", lambda *_: next(given))
    found = transformed(source, inputs, SPLIT, Stages(), threads=1)
    assert len(found.rescaling.gated) == apart
    assert found.rescaling.cut == cut
    assert found.prepared[-1].startswith("gates: nothing") != cut


def test_a_model_without_such_gates_is_left_as_it_is(tmp_path):
    text = "g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> { y = MatMul (x, w) }"
    source = open_source(write(tmp_path / "m.onnx", text))
    np.savez(tmp_path / "d.npz", x=np.ones((3, 4), np.float32))
    given = Inputs(open_dataset(tmp_path / "d.npz", source.inputs))
    found = transformed(source, given, SPLIT, Stages(), threads=1)
    assert found.model is source.model
    assert found.prepared[-1] == "gates: nothing, for no HardSwish follows a convolution"
