import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.calib import solver
from ptq.calib.squared_error import SquaredError
from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.metrics import sqnr_db
from ptq.numerics.qtype import INT8, INT16, UINT2, UINT4, UINT8, QType
from ptq.stats.base import TensorStats

RNG = np.random.default_rng(0)
SAMPLES = {
    "normal": RNG.standard_normal(50_000),
    "laplace": RNG.laplace(size=50_000),
    "student": RNG.standard_t(2, 50_000),
    "relu": np.maximum(RNG.standard_normal(50_000), 0),
    "relu6": np.clip(RNG.standard_normal(50_000) * 4, 0, 6),
    "shifted": RNG.standard_normal(50_000) + 2,
    "negative": -RNG.exponential(size=50_000),
    "skewed": np.where(RNG.random(50_000) < 0.5, RNG.normal(-1, 0.1, 50_000), RNG.exponential(1)),
}
SAMPLES = {name: x.astype(np.float32) for name, x in SAMPLES.items()}

every_sample = pytest.mark.parametrize("x", SAMPLES.values(), ids=SAMPLES)


def objective(stats, lo, hi, qtype, symmetric):
    params = qparams_from_range(
        np.atleast_1d(lo), np.atleast_1d(hi), qtype, symmetric=symmetric, axis=0
    )
    zero_point = params.zero_point.astype(float)
    return SquaredError.of(stats)(params.scale, qtype.qmin - zero_point, qtype.qmax - zero_point)


def solve(stats, qtype=UINT8, symmetric=False):
    return solver("mse").solve(stats, qtype, symmetric=symmetric)


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-50, 50, width=32)).filter(
        lambda x: np.any(np.abs(x) > 1e-30)
    ),
    st.sampled_from([UINT2, UINT4, INT8, INT16]),
    st.booleans(),
)
def test_it_is_never_worse_than_minmax(x, qtype, symmetric):
    stats = TensorStats.of(x)
    found = solve(stats, qtype, symmetric)
    lo, hi = min(float(x.min()), 0), max(float(x.max()), 0)
    ours, minmax = objective(stats, [found.lo, lo], [found.hi, hi], qtype, symmetric)
    assert ours <= minmax


@every_sample
@pytest.mark.parametrize("qtype", [UINT2, UINT4, UINT8], ids=str)
def test_symmetric_is_within_a_percent_of_a_thousand_thresholds(x, qtype):
    stats = TensorStats.of(x)
    found = solve(stats, qtype, symmetric=True)
    bounds = np.linspace(0, np.abs(x).max(), 1001)[1:]
    all_ = objective(stats, -bounds, bounds, qtype, True)
    best = objective(stats, -found.max_abs, found.max_abs, qtype, True)[0]
    assert best <= 1.01 * all_.min()


@pytest.mark.parametrize("name", ["relu", "relu6", "negative"])
@pytest.mark.parametrize("qtype", [UINT2, UINT4, UINT8], ids=str)
def test_one_sided_is_within_a_percent_of_a_thousand_thresholds(name, qtype):
    x = SAMPLES[name]
    stats = TensorStats.of(x)
    found = solve(stats, qtype)
    bounds = np.linspace(0, 1, 1001)[1:]
    all_ = objective(stats, bounds * min(x.min(), 0), bounds * max(x.max(), 0), qtype, False)
    assert objective(stats, found.lo, found.hi, qtype, False)[0] <= 1.01 * all_.min()


@every_sample
@pytest.mark.parametrize("qtype", [UINT4, UINT8], ids=str)
def test_two_ends_are_near_the_best_of_all_pairs(x, qtype):
    stats = TensorStats.of(x)
    found = solve(stats, qtype)
    lo, hi = (
        pair.ravel()
        for pair in np.meshgrid(
            np.linspace(0, min(x.min(), 0), 32), np.linspace(0, max(x.max(), 0), 32)
        )
    )
    some = hi > lo
    all_ = objective(stats, lo[some], hi[some], qtype, False)
    # A search along three lines can miss the best of the plane.
    assert objective(stats, found.lo, found.hi, qtype, False)[0] <= 1.1 * all_.min()


@every_sample
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_error_of_the_values_is_no_worse_than_with_minmax(x, symmetric):
    def quality(found):
        params = qparams_from_range(found.lo, found.hi, UINT8, symmetric=symmetric)
        return sqnr_db(x, fake_quantize(x, params))

    stats = TensorStats.of(x)
    minmax = solver("minmax").solve(stats, UINT8, symmetric=symmetric)
    # The histogram knows the error to about 1 %.
    assert quality(solve(stats, UINT8, symmetric)) >= quality(minmax) - 0.05


def test_relu6_keeps_its_six():
    found = solve(TensorStats.of(SAMPLES["relu6"]))
    assert (found.lo, found.hi) == (0, 6)


@pytest.fixture(scope="module")
def normal():
    return TensorStats.of(np.random.default_rng(1).standard_normal(1_000_000).astype(np.float32))


@pytest.mark.parametrize(
    ("bits", "step"),
    [(2, 1.0484), (3, 0.6018), (4, 0.3386), (5, 0.1888), (6, 0.1042), (8, 0.0308)],
)
def test_the_step_for_normal_values_is_that_of_max(normal, bits, step):
    # Max, "Quantizing for Minimum Distortion", 1960, for grids of 2^b codes from -2^(b-1).
    found = solve(normal, QType(bits, signed=True))
    params = qparams_from_range(found.lo, found.hi, QType(bits, signed=True), symmetric=False)
    # The least is flat: a step 4 % off has an error 0.5 % larger, which the sample can favour.
    assert params.scale == pytest.approx(step, rel=0.04)


@pytest.mark.parametrize(
    ("bits", "step"),
    [(2, 1.2240), (3, 0.6508), (4, 0.3534), (5, 0.1933), (6, 0.1055), (8, 0.0309)],
)
def test_the_step_for_normal_values_on_a_grid_of_an_odd_number_of_codes(normal, bits, step):
    qtype = QType(bits, signed=True, narrow=True)
    found = solve(normal, qtype, symmetric=True)
    params = qparams_from_range(found.lo, found.hi, qtype, symmetric=True)
    assert params.scale == pytest.approx(step, rel=0.04)


def test_a_symmetric_range_is_that_part_of_the_data_that_the_grid_covers():
    x = np.append(SAMPLES["laplace"], -SAMPLES["laplace"].max() / 2)
    found = solve(TensorStats.of(x), UINT4, symmetric=True)
    assert found.lo == -found.hi
    found = solve(TensorStats.of(SAMPLES["relu"]), UINT4, symmetric=True)
    assert found.lo == 0
