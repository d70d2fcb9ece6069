"""Rounding the layers of small networks: no channel gets worse on the data, whatever the layer."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, quantize, values

from ptq.graph.emit_qdq import emit_qdq
from ptq.graph.passes.edit import constant
from ptq.graph.site_weights import unsaturated
from ptq.numerics.qtype import QType
from ptq.rounders import ROUNDERS
from ptq.rounders.gptq import GptqRounder
from ptq.rounding import layer_by_layer, passes, round_weights
from ptq.shrinking import best_factors
from ptq.targets import load_target
from ptq.weights.codebook import CodebookQuantizer, to_nearest
from ptq.weights.seqmse import SeqMseQuantizer, ShrunkQuantizer

AVX2 = Settings(
    calib="minmax", weight_method="minmax", symmetric=False, target=load_target("ort-cpu-x86-avx2")
)

GPTQ = GptqRounder()

FOUR = replace(ORDINARY, weight_method="mse", bits=4)

LAYERS = {
    "conv": ("float[5, 4, 3, 3] w", "y = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w)"),
    "1 x 1": ("float[9, 4, 1, 1] w", "y = Conv (x, w)"),
    "grouped": ("float[6, 2, 3, 3] w", "y = Conv <group = 2, dilations = [2, 1]> (x, w)"),
    "depthwise": ("float[8, 1, 3, 3] w", 'y = Conv <group = 4, auto_pad = "SAME_LOWER"> (x, w)'),
    "matmul": ("float[6, 5] w", "y = MatMul (x, w)"),
}


def rounded(made, feeds, folder, method=GPTQ):
    """Return the weights that come out, and those that were there."""

    def emit(done):
        model = made.source.clone()
        emitted = emit_qdq(
            model,
            made.settings.sites(model),
            made.plan,
            made.settings.quantize_weight,
            rounded=done,
        )
        return model, emitted.tensors

    return round_weights(made.sites, emit, method, feeds, folder), emit({})[1]


def on_grid(made, name, shape, seed=1):
    """Return values of the input that its codes stand for, correlated, so that only weights err."""
    decision = made.plan.tensors[name]
    rng = np.random.default_rng(seed)
    smooth = rng.integers(60, 200, (shape[0], 1, 1, 1)) + rng.integers(-25, 25, shape)
    scale = np.float32(decision.scale)
    return ((smooth - decision.zero_point) * scale).astype(np.float32)


def errors(made, tensor, feed, axis):
    """Return the squared error of each output channel with this weight in place of the float."""
    model = made.source.clone()
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(tensor.dequantize(), name="w")
    lost = values(model, feed, ["y"])["y"] - values(made.source, feed, ["y"])["y"]
    return np.square(np.moveaxis(lost.astype(np.float64), axis, 0).reshape(lost.shape[axis], -1))


@pytest.mark.parametrize(
    "settings", [ORDINARY, AVX2, FOUR], ids=["here", "saturating", "four bits"]
)
@pytest.mark.parametrize("name", LAYERS)
def test_no_channel_gets_worse_on_the_data_it_was_rounded_on(name, settings, tmp_path):
    declared, layer = LAYERS[name]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    made = quantize(text, settings=settings)
    feed = {"x": on_grid(made, "x", (12, 4, 6, 6))}
    found, nearest = rounded(made, [feed], tmp_path)
    axis = -1 if name == "matmul" else 1
    before, after = (errors(made, t["w"], feed, axis).sum(axis=1) for t in (nearest, found))
    # the sums are of float32 products
    assert np.all(after <= before * (1 + 1e-4))
    assert after.sum() < 0.99 * before.sum()


@pytest.mark.parametrize("settings", [ORDINARY, AVX2], ids=["here", "saturating"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_factors_of_ranges_are_those_of_least_output_error(name, settings, tmp_path):
    """Against running the layer with every factor."""
    declared, layer = LAYERS[name]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    made = quantize(text, settings=settings)
    feed = {"x": on_grid(made, "x", (12, 4, 6, 6))}
    method, axis = SeqMseQuantizer(steps=6), -1 if name == "matmul" else 1
    qtype, written = QType.parse(settings.target.weight), made.emitted.tensors["w"].qparams.axis

    def by(site, array, other):
        return other.quantize(array, qtype, axis=written, symmetric=settings.weights_symmetric)

    def emit(_):
        model = made.source.clone()
        plan, weight = made.plan, made.settings.quantize_weight
        return model, emit_qdq(model, made.settings.sites(model), plan, weight).tensors

    def solve(site, tensor, halves):
        return best_factors(site, tensor, halves, method, by)

    found = layer_by_layer(made.sites, emit, solve, [feed], tmp_path)["w"]
    [site] = made.sites.sites
    array = constant(site.weight)
    losses = []
    for factor in method.factors():
        tensor = unsaturated(site, array, by(site, array, ShrunkQuantizer(factors=factor)))
        losses.append(errors(made, tensor, feed, axis).sum(axis=1))
    chosen = np.searchsorted(-method.factors(), -found)
    taken = np.take_along_axis(np.array(losses), chosen[None], axis=0)[0]
    # the sums are of float32 products
    np.testing.assert_allclose(taken, np.min(losses, axis=0), rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "fitted"),
    [
        (FOUR, True),
        (replace(FOUR, weights_symmetric=False), True),
        (ORDINARY, False),
        (replace(FOUR, per_channel=False), False),
        (Settings(bits=4), False),  # powers of two
    ],
)
def test_scales_are_fitted_to_few_bits(settings, fitted, tmp_path):
    declared, layer = LAYERS["grouped"]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    made = quantize(text, settings=settings)
    feed = {"x": on_grid(made, "x", (12, 4, 6, 6))}
    found, nearest = (t["w"].qparams for t in rounded(made, [feed], tmp_path))
    assert (found.qtype, found.axis) == (nearest.qtype, nearest.axis)
    np.testing.assert_array_equal(found.zero_point, nearest.zero_point)
    changed = found.scale != nearest.scale
    assert changed.any() == fitted
    assert np.all(np.abs(np.log2(found.scale / nearest.scale)) <= 1)


def test_what_was_found_is_what_is_written(tmp_path):
    declared, layer = LAYERS["conv"]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    made = quantize(text, settings=FOUR)
    found, _ = rounded(made, [{"x": on_grid(made, "x", (12, 4, 6, 6))}], tmp_path)
    model, sites = made.source.clone(), made.settings.sites
    written = emit_qdq(
        model, sites(model), made.plan, made.settings.quantize_weight, rounded=found
    ).tensors["w"]
    np.testing.assert_array_equal(written.codes, found["w"].codes)
    np.testing.assert_array_equal(written.qparams.scale, found["w"].qparams.scale)


class Quartiles(CodebookQuantizer, frozen=True, tag="quartiles"):
    """Four levels of each channel, between which as many weights lie."""

    free_levels: ClassVar[bool] = True

    def codebook(self, rows, bits):
        shares = (np.arange(2**bits) + 0.5) / 2**bits
        return to_nearest(rows, np.quantile(rows.astype(float), shares, axis=1).T)


@dataclass(frozen=True)
class OfQuartiles(Settings):
    """Weights in two bits at levels of their own."""

    def quantize_weight(self, _, w, axis, symmetric):
        return Quartiles().quantize(w, QType(2, signed=True), axis=axis, symmetric=symmetric)


def of_quartiles(settings):
    kept = {"calib": "minmax", "symmetric": False, "target": settings.target}
    return OfQuartiles(**kept, bits=2)


@pytest.mark.parametrize("settings", [ORDINARY, AVX2], ids=["here", "saturating"])
def test_levels_that_are_free_are_fitted_and_written(settings, tmp_path):
    declared, layer = LAYERS["grouped"]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    made = quantize(text, settings=of_quartiles(settings))
    feed = {"x": on_grid(made, "x", (12, 4, 6, 6))}
    gptq, nearest = rounded(made, [feed], tmp_path)
    found, _ = rounded(made, [feed], tmp_path, ROUNDERS.parse("refit"))
    tensor, before = found["w"], nearest["w"]
    assert tensor.levels.shape == before.levels.shape
    assert not np.array_equal(tensor.levels, before.levels)
    np.testing.assert_array_equal(gptq["w"].levels, before.levels)
    for channel, levels in zip(tensor.codes, tensor.levels, strict=True):
        assert set(channel.ravel()) <= set(levels)
    assert np.abs(tensor.codes.astype(int)).max() <= (64 if settings is AVX2 else 127)
    lost = [errors(made, t["w"], feed, 1).sum(axis=1) for t in (nearest, gptq, found)]
    # the sums are of float32 products
    assert np.all(lost[2] <= lost[0] * (1 + 1e-4))
    assert lost[2].sum() < 0.8 * lost[1].sum()
    model, sites = made.source.clone(), made.settings.sites
    written = emit_qdq(
        model, sites(model), made.plan, made.settings.quantize_weight, rounded=found
    ).tensors["w"]
    np.testing.assert_array_equal(written.codes, tensor.codes)
    np.testing.assert_array_equal(written.levels, tensor.levels)
    np.testing.assert_array_equal(written.qparams.scale, tensor.qparams.scale)


@pytest.mark.parametrize("name", ["admm", "cd", "obq", "refit"])
def test_other_methods_keep_what_kernels_take_and_make_no_channel_worse(name, tmp_path):
    declared, layer = LAYERS["conv"]
    text = f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) <{declared}> {{ {layer} }}"
    for settings in (AVX2, FOUR):
        made = quantize(text, settings=settings)
        feed = {"x": on_grid(made, "x", (12, 4, 6, 6))}
        found, nearest = rounded(made, [feed], tmp_path, ROUNDERS.parse(name))
        before, after = (errors(made, t["w"], feed, 1).sum(axis=1) for t in (nearest, found))
        assert np.all(after <= before * (1 + 1e-4))  # as above
        assert after.sum() < 0.99 * before.sum()
        [site] = made.sites.sites
        settled = unsaturated(site, constant(site.weight), found["w"])
        np.testing.assert_array_equal(settled.codes, found["w"].codes)


def test_weights_that_are_no_stack_of_matrices_are_left(tmp_path):
    text = """g (float[2, 4, 6, 6] x) => (float[N, 4, H, W] y, float[2, 4, 6, 5] m, float[M, 6] z)
        <float[4, 4, 1, 1] own, float[4, 2, 3, 3] two, float[2, 4, 6, 5] batch, float[6, 6] tied,
         int64[2] rows = {-1, 6}>
        { t = Conv (x, own) u = Conv <group = 2> (t, two) v = Conv <group = 2> (u, two)
          y = Conv (v, own) m = MatMul (x, batch) r = Reshape (x, rows)
          g = Gemm <transB = 1> (r, tied) z = MatMul (g, tied) }"""
    made = quantize(text, settings=ORDINARY)
    found, nearest = rounded(made, [random_feed(made.source)], tmp_path)
    assert set(nearest) == {"own", "two", "batch", "tied"}
    assert set(found) == {"own", "two"}


def test_passes_are_few_and_the_first_layers_come_first(tmp_path):
    layers = "".join(f"t{i + 1} = Conv (t{i}, w{i}) " for i in range(20))
    declared = ", ".join(f"float[4, 4, 1, 1] w{i}" for i in range(20))
    text = f"g (float[1, 4, 6, 6] t0) => (float[N, 4, H, W] t20) <{declared}> {{ {layers} }}"
    made = quantize(text, settings=ORDINARY)
    found, _ = rounded(made, [random_feed(made.source)] * 2, tmp_path)
    assert list(found) == [f"w{i}" for i in range(20)]
    assert passes(made.sites) == 7
