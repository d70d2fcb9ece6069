"""Codebooks of k-means, and pruning."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer

VECTORS = json.loads((Path(__file__).parent.parent / "numerics" / "vectors.json").read_text())

OF = ("channel", "scaled", "layer")


def weights(shape=(6, 40)):
    return np.random.default_rng(0).laplace(size=shape).astype(np.float32)


def quantized(w, bits=4, axis=0, **options):
    method = weight_quantizer("kmeans", **options)
    return method.quantize(w, QType(bits, signed=True), axis=axis, symmetric=True)


def squared(w, tensor):
    return float(((tensor.dequantize() - w).astype(np.float64) ** 2).sum())


def test_the_worked_example():
    rows = np.array([VECTORS["inputs"]["w"]], np.float32)
    found = weight_quantizer("kmeans", init="linear").codebook(rows, 2)
    known = VECTORS["kmeans4_linear_init"]
    # The weights are float32.
    assert found.levels[0] == pytest.approx(known["codebook"], abs=1e-7)
    assert found.index[0].tolist() == known["idx"]


@pytest.mark.parametrize("of", ["layer", "channel"])
@pytest.mark.parametrize("prune", [0.3, 0.75])
def test_the_smallest_magnitudes_are_pruned_to_exactly_0(prune, of):
    w = weights()
    values = quantized(w, prune=prune, codebook_of=of).dequantize()
    parts = [(w, values)] if of == "layer" else list(zip(w, values, strict=True))
    for before, after in parts:
        order = np.argsort(np.abs(before).reshape(-1))
        assert np.all(after.reshape(-1)[order[: int(prune * before.size)]] == 0)


def test_without_pruning_no_level_is_reserved_for_0():
    tensor = quantized(np.array([[-3.0, -1.0, 1.0, 3.0]], np.float32), bits=2)
    assert len(set(tensor.levels[0])) == 4
    assert tensor.dequantize()[0] == pytest.approx([-3.0, -1.0, 1.0, 3.0], rel=1 / 254)


def test_the_codebook_of_a_layer_has_the_same_codes_and_scale_in_all_channels():
    w = weights()
    tensor = quantized(w, codebook_of="layer")
    assert np.all(tensor.qparams.scale == tensor.qparams.scale[0])
    assert np.all(tensor.levels == tensor.levels[0])
    whole = quantized(w, axis=None)
    assert np.array_equal(tensor.codes, whole.codes)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_more_a_channel_has_of_its_own_the_less_is_the_error(bits):
    w = weights() * np.geomspace(0.1, 1.0, 6, dtype=np.float32)[:, None]
    of = {o: squared(w, quantized(w, bits=bits, codebook_of=o)) for o in OF}
    mse = weight_quantizer("mse").quantize(w, QType(bits, signed=True), axis=0, symmetric=True)
    assert of["channel"] < of["scaled"] < min(of["layer"], squared(w, mse))


def test_a_scaled_codebook_has_the_same_codes_and_a_scale_for_each_channel():
    w = weights()
    bigger = w * np.float32(2) ** np.arange(6, dtype=np.float32)[:, None]
    one, other = (quantized(v, codebook_of="scaled") for v in (w, bigger))
    assert np.all(one.levels == one.levels[0])
    assert np.array_equal(one.codes, other.codes)
    assert other.qparams.scale / one.qparams.scale == pytest.approx(2.0 ** np.arange(6))
