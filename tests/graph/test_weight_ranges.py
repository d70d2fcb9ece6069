"""What the codes of written weights cover."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import ptq
from ptq.graph.weight_ranges import weight_ranges
from ptq.options import RunOptions
from ptq.source import open_source

WAYS = {
    "static": {},
    "static, one scale": {"weights": "per-tensor"},
    "static, integer operators": {"format": "integer"},
    "static, asymmetric": {"weights_symmetric": False},
    "static, clipped": {"weight_method": "percentile:coverage=99"},
    "static, 3 bits": {"bits": 3, "edge_bits": 3, "weights_symmetric": False},
    "dynamic": {"scheme": "dynamic"},
    "4 bits": {"scheme": "weight-only", "bits": 4, "format": "integer"},
    "4 bits, portable": {"scheme": "weight-only", "bits": 4},
    "4 bits, asymmetric": {
        "scheme": "weight-only", "bits": 4, "weights_symmetric": False, "format": "integer"
    },
    "2 bits": {"scheme": "weight-only", "bits": 2, "format": "integer"},
}  # fmt: skip


@pytest.fixture(scope="module")
def written(digits, tmp_path_factory):
    """Return the ranges and the float weights of the small network, quantized in a way."""
    folder, known = tmp_path_factory.mktemp("written"), {}

    def quantized(way):
        if way not in known:
            output = folder / f"{len(known)}.onnx"
            config = ptq.QuantizeConfig(place=("all",), allow_larger=True, **WAYS[way])
            options = RunOptions(output=output, seconds=0.01)
            result = ptq.quantize(digits.model, digits.calibration, config, options=options)
            names = dict.fromkeys(n.weight for n in result.plan.nodes if n.weight is not None)
            model = open_source(digits.model).model
            widths = dict.fromkeys(names, config.bits) if config.scheme == "static" else {}
            found = weight_ranges(model, output, names, bits=config.bits, widths=widths)
            known[way] = list(found), names, output
        return known[way]

    return quantized


@pytest.mark.parametrize("way", WAYS)
def test_every_weight_that_is_in_codes_is_found(way, written):
    found, names, _ = written(way)
    assert [r.name for r in found] == list(names)
    assert found
    bits = WAYS[way].get("bits", 8)
    assert {r.bits for r in found} == {bits}


@pytest.mark.parametrize("way", WAYS)
def test_ranges_hold_zero_and_as_many_steps_as_there_are_codes(way, written):
    found, _, _ = written(way)
    for weight in found:
        assert np.all(weight.lo <= 0) and np.all(weight.hi >= 0)
        assert np.all(weight.hi > weight.lo)
        one_sided = np.isclose(-weight.lo, weight.hi, rtol=0.51 if weight.bits < 8 else 0.01)
        if weight.symmetric and weight.bits > 2:
            assert np.all(one_sided), "of a symmetric grid one side has one step more"


@pytest.mark.parametrize("way", ["static", "static, integer operators"])
def test_of_minmax_the_outermost_value_of_each_channel_is_the_outermost_code(way, written):
    # weights were fitted to saturating kernels or not: their scales are those of minmax
    found, _, _ = written(way)
    for weight in found:
        rows = weight.array.reshape(len(weight.array), -1)
        if weight.lo.shape == (len(rows),):
            # a float32 scale times 127 rounds once more than the float64 of the test
            assert np.all(weight.hi >= np.abs(rows).max(axis=1) * (1 - 1e-6))


def test_what_clips_is_counted_as_its_codes_are(written):
    found, _, output = written("static, clipped")
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(output).graph.initializer}
    shares = {w.name: w.clip_share for w in found}
    assert any(share and share > 0 for share in shares.values())
    for weight in found:
        scale = stored[f"{weight.name}/scale"].astype(np.float64)
        if scale.ndim and weight.array.shape[0] == scale.size and weight.array.ndim == 4:
            steps = weight.array / scale.reshape(-1, 1, 1, 1)
            beyond = (steps > 127.5) | (steps < -128.5)
            assert shares[weight.name] == pytest.approx(beyond.mean(), abs=1e-12)


def test_a_file_that_says_no_axis_has_no_share(written):
    found, _, _ = written("4 bits")
    assert {weight.clip_share for weight in found} == {None}


def test_weights_that_are_not_there_are_passed_over(digits, written):
    _, _, output = written("static")
    model = open_source(digits.model).model
    assert list(weight_ranges(model, output, ["nothing"], bits=8)) == []


def test_of_weights_in_fewer_bits_than_int8_it_is_known_what_clips(written):
    found, _, _ = written("static, 3 bits")
    assert all(weight.clip_share is not None for weight in found)
