"""``--weight-method`` of weight-only models, from settings to the file."""

import numpy as np
import onnx
import pytest
from support.models import parse, write

import ptq
from ptq.embedded import PinnedPlacement, read_recipe
from ptq.inspection import foresee
from ptq.options import RunOptions

#: A norm whose channels differ much in size, and two dense layers.
NET = """g (float[N, 12, 64] x) => (float[N, 12, 32] y)
         <float[64] g, float[64] h, float[64, 96] w, float[96] b, float[96, 32] v> {
           t = LayerNormalization <axis = -1> (x, g, h)
           d = MatMul (t, w) a = Add (d, b) r = Relu (a) y = MatMul (r, v)
         }"""


@pytest.fixture
def weight_only(tmp_path):
    """Quantize the weights of the network without timing any placement."""
    rng = np.random.default_rng(0)
    weights = {
        "g": np.exp(rng.normal(0, 1.5, 64)).astype(np.float32),
        "h": np.zeros(64, np.float32),
        "w": rng.normal(size=(64, 96)).astype(np.float32),
        "v": rng.normal(size=(96, 32)).astype(np.float32),
    }
    model = write(tmp_path / "model.onnx", parse(NET, weights))
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(8, 12, 64)).astype(np.float32))

    def run(name="out", *, config=None, **settings):
        data = str(tmp_path / "data.npz")
        options = RunOptions(
            output=tmp_path / f"{name}.onnx", force=True, evaluation=data, threads=1,
            seconds=0.05, placement=PinnedPlacement(),
        )  # fmt: skip
        config = config or ptq.QuantizeConfig(
            scheme="weight-only", allow_larger=True, **{"bits": 4, **settings}
        )
        return ptq.quantize(model, data, config, options=options)

    return run


@pytest.mark.parametrize("method", ["kquant", "nf4"])
def test_gptq_rounds_to_what_a_method_has(weight_only, method):
    plain = weight_only(weight_method=method).report
    found = weight_only(weight_method=method, rounding="gptq").report
    [step] = found.refinements
    assert step.kept
    assert found.accuracy.sqnr_db > plain.accuracy.sqnr_db + 0.5
    # codes are of the same levels, and scales stored as they were
    assert abs(found.output.size_bytes - plain.output.size_bytes) < 512


def test_awq_measures_what_the_method_makes_of_weights(weight_only):
    """Channels of very different sizes: those that matter most get nearer codes."""
    plain, found = (weight_only(weight_method="hqq", awq=awq).report for awq in (False, True))
    assert found.accuracy.sqnr_db > plain.accuracy.sqnr_db + 1


def test_the_recipe_in_the_model_makes_the_same_bytes(weight_only):
    result = weight_only(weight_method="kquant:scale_bits=8", bits=3)
    config = read_recipe(result.output).config
    assert config.weight_method == "kquant:scale_bits=8"
    assert weight_only("again", config=config).output.read_bytes() == result.output.read_bytes()


def test_the_size_is_foreseen(weight_only, tmp_path):
    config = ptq.QuantizeConfig(scheme="weight-only", bits=4, weight_method="kquant:scale_bits=0")
    foreseen = foresee(tmp_path / "model.onnx", config, {}).inspection.predicted_bytes
    size = weight_only(weight_method="kquant:scale_bits=0").report.output.size_bytes
    assert foreseen == pytest.approx(size, abs=1500)  # the recipe is not in it


def test_floats_are_unpacked_at_load(weight_only):
    result = weight_only(weight_method="fp8", bits=8)
    assert result.report.accuracy.sqnr_db > 25  # a mantissa of 3 bits
    types = {t.data_type for t in onnx.load(result.output).graph.initializer}
    assert onnx.TensorProto.FLOAT8E4M3FN in types
