"""Laws of every trained quantizer: what the export of an integer model relies on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.faking import Faking, activation_start, weight_start

from ptq.errors import ConfigError
from ptq.train.fakequant import QAT_METHODS
from ptq.train.fakequant.base import QatMethod

METHODS = [method() for method in QAT_METHODS.methods().values()]
#: Their levels are odd, from -(2^b - 1) to 2^b - 1.
ODD = {"dorefa", "pact-sawb"}
N = 64

methods = st.sampled_from(METHODS)
bits = st.integers(2, 8)
seeds = st.integers(0, 50)


def named(method: QatMethod) -> str:
    return str(method.__struct_config__.tag)


@cache
def of_activation(method: QatMethod, width: int, signed: bool) -> Faking:
    start = activation_start(width, 1.3, -0.6 if signed else 0.0, size=N)
    return Faking(method, start, np.zeros(N, np.float32))


@cache
def of_weight(method: QatMethod, width: int) -> Faking:
    array = weights(0)
    start = weight_start(array, width, np.max(np.abs(array), axis=(1, 2)), axis=0)
    return Faking(method, start, array)


def values(seed: int, signed: bool) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0.2, 0.8, N).astype(np.float32)
    return x if signed else np.maximum(x, 0)


def weights(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (3, 4, 5)) * [[[0.1]], [[1.0]], [[3.0]]]).astype(np.float32)


def moved(faking: Faking, seed: int) -> dict[str, np.ndarray]:
    """Return parameters as training may leave them."""
    rng = np.random.default_rng(seed)
    return {n: a * rng.uniform(0.8, 1.25, a.shape) for n, a in faking.first.items()}


@given(methods, bits, st.booleans(), seeds)
def test_activations_are_a_scale_times_codes_of_the_grid(
    method: QatMethod, width: int, signed: bool, seed: int
) -> None:
    faking = of_activation(method, width, signed)
    x = values(seed, signed)
    found = faking.run(x, **moved(faking, seed))
    zero = found.get("zero", np.float32(0))
    assert found["scale"].shape == zero.shape == ()
    assert zero == np.rint(zero) and 0 <= zero < 2**width
    step = found.get("encode", found["scale"])
    codes = np.clip(np.rint(x / step) + zero, 0, 2**width - 1)  # what QuantizeLinear computes
    np.testing.assert_array_equal(found["value"], (codes - zero) * found["scale"])


@given(methods, bits, seeds)
def test_weights_are_a_scale_times_codes_of_the_grid(
    method: QatMethod, width: int, seed: int
) -> None:
    if width not in method.weight_bits:
        return
    faking = of_weight(method, width)
    found = faking.run(weights(seed), **moved(faking, seed))
    codes = found["value"] / found["scale"]
    # a product in float32, divided by one factor: the other to 2^-22 or so
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    codes = np.rint(codes)
    np.testing.assert_array_equal(found["value"], (codes * found["scale"]).astype(np.float32))
    most = 2**width - 1 if named(method) in ODD else 2 ** (width - 1) - 1
    assert np.max(np.abs(codes)) <= most <= 127
    if named(method) in ODD:
        assert np.all(codes % 2 == 1)
    assert np.broadcast_shapes(found["scale"].shape, codes.shape) == codes.shape


@given(methods, bits, st.booleans(), seeds)
def test_activations_are_monotone_and_exact_at_zero(
    method: QatMethod, width: int, signed: bool, seed: int
) -> None:
    faking = of_activation(method, width, signed)
    x = np.sort(values(seed, signed))
    x[0 if signed else slice(0, 2)] = min(x[0], 0.0)
    given_ = moved(faking, seed)
    assert np.all(np.diff(faking.run(x, **given_)["value"]) >= 0)
    assert not faking.run(np.zeros_like(x), **given_)["value"].any()


@given(st.sampled_from([m for m in METHODS if named(m) != "qil"]), bits, st.booleans(), seeds)
def test_activations_that_are_levels_stay(
    method: QatMethod, width: int, signed: bool, seed: int
) -> None:
    faking = of_activation(method, width, signed)
    given_ = moved(faking, seed)
    once = faking.run(values(seed, signed), **given_)["value"]
    np.testing.assert_array_equal(faking.run(once, **given_)["value"], once)


@given(methods, bits, seeds)
def test_weights_are_monotone_in_each_channel(method: QatMethod, width: int, seed: int) -> None:
    if width not in method.weight_bits:
        return
    faking = of_weight(method, width)
    w = np.sort(weights(seed).reshape(3, -1), axis=1).reshape(3, 4, 5)
    found = faking.run(w, **moved(faking, seed))["value"].reshape(3, -1)
    assert np.all(np.diff(found, axis=1) >= 0)


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("signed", [False, True])
def test_activations_start_as_post_training_quantization_leaves_them(
    method: QatMethod, signed: bool
) -> None:
    if named(method) in ("pact", "pact-sawb") and signed:
        pytest.skip("its zero point follows from two bounds")
    start = activation_start(4, 1.3, -0.6 if signed else 0.0, size=N)
    x = values(1, signed)
    codes = np.clip(np.rint(x / np.float32(start.scale)) + start.zero_point, 0, 15)
    found = of_activation(method, 4, signed).run(x)["value"]
    # the step may be computed from a bound: two operations in float32
    np.testing.assert_allclose(found, (codes - start.zero_point) * start.scale, rtol=5e-7)


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_all_parameters_get_a_gradient(method: QatMethod) -> None:
    x, w = values(2, signed=True), weights(2)
    for faking, data in ((of_activation(method, 4, True), x), (of_weight(method, 4), w)):
        found = faking.run(3 * data)
        assert found["d/x"].any() and np.isfinite(found["d/x"]).all()
        for name, parameter in faking.parameters.items():
            if parameter.role != "state":
                assert found[f"d/{name}"].any(), name
                assert found[f"d/{name}"].shape == parameter.start.shape


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_channels_of_zeros_and_constants_are_finite(
    method: QatMethod, width: int, constant: float
) -> None:
    if width not in method.weight_bits:
        pytest.skip("refused")
    w = weights(4)
    w[1] = constant
    start = weight_start(w, width, np.array([0.3, 0.4, 9.0]), axis=0)
    for array in (w, np.full_like(w, constant)):
        found = Faking(method, start, array).run(array)
        assert all(np.isfinite(a).all() for a in found.values())
        assert np.all(found["scale"] > 1e-6)
        if named(method) not in ODD:
            assert np.abs(found["value"] - array)[1].max() <= 0.25


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_activations_that_are_all_zero_are_finite(method: QatMethod) -> None:
    for signed in (False, True):
        found = of_activation(method, 4, signed).run(np.zeros(N, np.float32))
        assert all(np.isfinite(a).all() for a in found.values())


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_widths_that_a_method_lacks_are_refused(method: QatMethod) -> None:
    method.check_widths(max(method.weight_bits), 8)
    for widths in ((method.weight_bits[-1] + 1, 8), (method.weight_bits[0] - 1, 8), (4, 1)):
        with pytest.raises(ConfigError, match=r"bits, not .*choose"):
            method.check_widths(*widths)
