"""Small floats are those of ml_dtypes, which others check against hardware."""

import ml_dtypes
import numpy as np
import pytest

from ptq.numerics.minifloat import E2M1, E2M3, E4M3, E5M2, FLOATS, shared_exponent

FORMATS = [
    (E2M1, ml_dtypes.float4_e2m1fn),
    (E2M3, ml_dtypes.float6_e2m3fn),
    (E4M3, ml_dtypes.float8_e4m3fn),
    (E5M2, ml_dtypes.float8_e5m2),
]


@pytest.mark.parametrize(("form", "reference"), FORMATS)
def test_numbers_are_rounded_as_by_ml_dtypes(form, reference):
    assert form.largest == float(ml_dtypes.finfo(reference).max)
    magnitudes = form.magnitudes()
    ties = (magnitudes[1:] + magnitudes[:-1]) / 2
    random = np.random.default_rng(0).uniform(0, form.largest, 1000)
    tiny = np.ldexp(random, -12)
    x = np.concatenate([magnitudes, ties, random, tiny]).astype(np.float32)
    for signed in (x, -x):
        assert np.array_equal(form.round(signed), signed.astype(reference).astype(np.float64))
    assert form.round(np.array([1e9])) == form.largest


@pytest.mark.parametrize("name", FLOATS)
def test_the_bits_of_float8_are_those_of_onnx(name):
    reference = dict(zip(("float8e4m3fn", "float8e5m2"), FORMATS[2:], strict=True))[name][1]
    every = np.arange(256, dtype=np.uint8).view(reference)
    finite = every[np.isfinite(every.astype(np.float32))]
    values = finite.astype(np.float32)
    assert np.array_equal(FLOATS[name].encode(values), finite.view(np.uint8))
    assert np.array_equal(FLOATS[name].decode(finite.view(np.uint8)), values)


def test_e2m1_has_eight_magnitudes():
    assert E2M1.magnitudes().tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def test_the_shared_exponent_is_that_of_the_largest():
    largest = np.array([6.0, 7.99, 8.0, 0.0, 1.0])
    assert shared_exponent(largest, E2M1.emax).tolist() == [0, 0, 1, 0, -2]
