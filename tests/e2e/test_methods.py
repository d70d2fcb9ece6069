"""Every method, on a trained network with labels: it runs, it loads, it is still right."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.models import parse, write

import ptq
from ptq.calib import solvers
from ptq.options import RunOptions
from ptq.weights import weight_quantizers
from ptq.work import _SEARCH_SAMPLES

#: The most that a sound method may lose, in points of top-1 accuracy (of 98.66 %, 597 images).
LOSS = 1.5

#: SQNR in dB that each range method reaches at least: what was measured when this was written
#: (in the comments), less half a bit.
RANGES = {
    "minmax": 32.8,  # 35.8
    "percentile": 33.2,  # 36.3
    "percentile:coverage=99.9": 22.4,  # 25.5
    "kl": 32.7,  # 35.7
    "mse": 33.2,  # 36.3
    "aciq": 28.5,  # 31.6
    "ema": 22.0,  # 25.0
    "scale:shrink=0.95": 22.8,  # 25.8
    "lp": 32.6,  # 35.7
    "cosine": 32.9,  # 35.9
    "hwgq": 23.6,  # 26.7
    "pact": 33.2,  # 36.3, as mse
    "qcode": 28.6,  # 31.7
    "qcode:objective=kl": 27.9,  # 30.9
}


def check(result) -> None:
    """Check a written model apart from what `ptq` itself says of it."""
    onnx.checker.check_model(str(result.output), full_check=True)
    session = ort.InferenceSession(result.output, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"input": np.zeros((2, 1, 8, 8), np.float32)})
    assert np.isfinite(logits).all()
    accuracy = result.report.accuracy
    assert 100 * (accuracy.float_top1 - accuracy.quantized_top1) <= LOSS
    assert result.report.output.size_bytes < result.report.input.size_bytes / 2


@pytest.mark.parametrize(("method", "sqnr_db"), RANGES.items())
def test_a_range_method_keeps_accuracy(made, method, sqnr_db):
    result = made(calib=method)
    check(result)
    assert result.report.accuracy.sqnr_db >= sqnr_db


def test_every_registered_range_method_is_tried():
    # of `auto` and `lapq`, which choose among them, test_auto_ranges.py says more; `dorefa` and
    # `wrpn` are right only for networks that were trained for them; of methods with levels of
    # their own, which are those of `mse` at 8 bits, test_narrow_activations.py says more
    tried = {method.partition(":")[0] for method in RANGES}
    uneven = {name for name, cls in solvers().items() if not cls().uniform}
    assert tried | uneven | {"auto", "lapq", "dorefa", "wrpn"} == set(solvers())


@pytest.mark.parametrize("objective", ["mse", "kl", "output"])
def test_power_of_two_scales_keep_accuracy(made, objective):
    result = made(calib="qcode", qcode_objective=objective)
    check(result)
    for tensor in result.report.tensors:
        mantissa, _ = np.frexp(tensor.scale)
        assert mantissa == 0.5, f"the scale of {tensor.name} is no power of two"


@pytest.mark.parametrize(
    "settings",
    [{"calib": "qcode"}, {"overrides": (ptq.Override(match="[tua]", calib="qcode"),)}],
    ids=["all", "some"],
)
def test_power_of_two_scales_stay_so_behind_a_constant_factor(tmp_path, settings):
    model = write(
        tmp_path / "model.onnx",
        parse(
            """g (float[1, 4, 8, 8] x) => (float[1, 16, 8, 8] y)
            <float[16, 4, 3, 3] w, float[16, 32, 3, 3] v, float third = {0.33}> {
            t = Conv <pads = [1, 1, 1, 1]> (x, w) u = Mul (t, third) a = Concat <axis = 1> (t, u)
            y = Conv <pads = [1, 1, 1, 1]> (a, v) }"""
        ),
    )
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(8, 4, 8, 8)))
    config = ptq.QuantizeConfig(place=("all",), **settings)
    found = ptq.quantize(model, str(tmp_path / "data.npz"), config)
    scales = {t.name: t.scale for t in found.report.tensors}
    assert all(np.frexp(scales[name])[0] == 0.5 for name in "tua")


def test_searching_the_output_error_never_costs_where_it_searches(digits, quantized, tmp_path):
    with np.load(digits.calibration) as arrays:
        np.savez(tmp_path / "searched.npz", input=arrays["input"][:_SEARCH_SAMPLES])
    seen = RunOptions(evaluation=str(tmp_path / "searched.npz"))
    layerwise = quantized(options=seen, calib="qcode").report.accuracy
    searched = quantized(options=seen, calib="qcode", qcode_objective="output").report.accuracy
    assert searched.sqnr_db >= layerwise.sqnr_db


@pytest.mark.parametrize(
    "method",
    [name for name, m in weight_quantizers().items() if m.uniform and not m.runs_network],
)
@pytest.mark.parametrize("granularity", ["per-channel", "per-tensor"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_a_weight_method_keeps_accuracy(made, method, granularity, symmetric):
    result = made(
        calib="minmax", weight_method=method, weights=granularity, weights_symmetric=symmetric
    )
    check(result)


@pytest.mark.parametrize(
    "method", [name for name, m in weight_quantizers().items() if m.runs_network]
)
def test_a_search_over_weights_keeps_accuracy(made, method):
    check(made(calib="minmax", weight_method=method))


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("method", ["minmax", "kl", "mse"])
def test_symmetric_activations_keep_accuracy(made, method, symmetric):
    result = made(calib=method, symmetric=symmetric)
    check(result)
    if symmetric:
        assert {t.zero_point for t in result.report.tensors} == {128}


def test_asymmetric_activations_spend_no_code_below_a_relu(made):
    tensors = {t.name: t for t in made().report.tensors}
    for name, tensor in tensors.items():
        if "relu" in name:
            assert tensor.zero_point == 0, name
            assert tensor.lo == 0, name


def test_weights_are_stored_as_asked(made):
    for granularity, symmetric in itertools.product(["per-channel", "per-tensor"], [True, False]):
        result = made(
            calib="minmax",
            weight_method="minmax",
            weights=granularity,
            weights_symmetric=symmetric,
        )
        model = onnx.load(result.output)
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        dequantized = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
        weights = [n for n in dequantized if n.input[0] in tensors and tensors[n.input[0]].ndim > 1]
        assert len(weights) == 13
        for node in weights:
            codes, scale, zero_point = (tensors[name] for name in node.input)
            assert codes.dtype == zero_point.dtype == np.int8
            assert (scale.ndim == 1) == (granularity == "per-channel")
            depthwise = codes.ndim == 4 and codes.shape[1] == 1 and codes.shape[0] > 8
            if symmetric:
                assert not zero_point.any()
                assert codes.min() >= -127, "the narrow grid, whose ends are of one size"
            elif not depthwise and granularity == "per-channel":
                assert zero_point.any()


def test_asymmetric_weights_stay_symmetric_where_the_kernel_would_be_slow(made):
    result = made(weights_symmetric=False)
    planned = [n for n in result.plan.nodes if n.op_type in ("Conv", "Gemm")]
    assert [n.name for n in planned if n.weight_symmetric] == [
        f"block{i}.depthwise.conv" for i in (1, 2, 3)
    ]
    assert any("3 depthwise convolutions kept symmetric" in n for n in result.report.notices)


def test_methods_differ(made):
    """A method that silently falls back on another one would pass every test above."""
    found = {}
    for method in RANGES.keys() - {"pact"}:  # by the error of tensors, PACT is `mse`
        tensors = made(calib=method).report.tensors
        found[method] = tuple((t.name, t.lo, t.hi) for t in tensors)
    assert len(set(found.values())) == len(found)


def test_clipping_methods_clip_and_minmax_does_not(made):
    def clipped(method):
        return sum(t.clip_share for t in made(calib=method, protect=0.0).report.tensors)

    assert clipped("minmax") == 0
    assert clipped("percentile:coverage=99") > clipped("percentile:coverage=99.9") > 0
    assert clipped("scale:shrink=0.5") > clipped("scale:shrink=0.9")


def test_excluding_a_layer_makes_it_exact_and_costs_size(made):
    whole = made().report
    part = made(exclude=("stem.*", "dense.*")).report
    assert part.accuracy.sqnr_db > whole.accuracy.sqnr_db
    assert part.output.size_bytes > whole.output.size_bytes
