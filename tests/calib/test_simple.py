"""The methods without a search: minmax, ema, scale."""

from functools import reduce
from operator import add

import numpy as np

from ptq.calib import Range, solver
from ptq.numerics.qtype import UINT8
from ptq.stats.base import TensorStats


def stats_of(*batches, decay=0.9):
    return reduce(add, (TensorStats.of(np.array(b, np.float32), decay) for b in batches))


def solve(name, stats, symmetric=False, **options):
    return solver(name, **options).solve(stats, UINT8, symmetric=symmetric)


def test_minmax_covers_all_values_and_zero():
    assert solve("minmax", stats_of([-1, 3], [2, 5])) == Range(-1, 5)
    assert solve("minmax", stats_of([2, 5])) == Range(0, 5)
    assert solve("minmax", stats_of([-2, -5])) == Range(-5, 0)


def test_minmax_never_shrinks_by_more_data():
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal(10) for _ in range(8)]
    for count in range(1, 8):
        less, more = (solve("minmax", stats_of(*batches[:n])) for n in (count, count + 1))
        assert more.lo <= less.lo
        assert less.hi <= more.hi


def test_ema_averages_the_extremes_of_batches():
    found = solve("ema", stats_of([-1, 3], [-2, 5]))
    assert np.isclose(found.lo, 0.9 * -1 + 0.1 * -2)
    assert np.isclose(found.hi, 0.9 * 3 + 0.1 * 5)


def test_ema_of_equal_batches_is_minmax():
    stats = stats_of(*[[-0.1, 0.7]] * 30)
    assert solve("ema", stats) == solve("minmax", stats)


def test_ema_symmetric_covers_the_larger_average_on_both_sides():
    found = solve("ema", stats_of([-4, 1], [-4, 9]), symmetric=True)
    assert (found.lo, found.hi) == (-4, 4)


def test_scale_shrinks_both_ends():
    stats = stats_of([-1, 4])
    assert solve("scale", stats, shrink=0.5) == Range(-0.5, 2)
    assert solve("scale", stats, shrink=0.5, symmetric=True) == Range(-1, 2)
    assert solve("scale", stats, shrink=1.0) == Range(-1, 4)
    assert np.isclose(solve("scale", stats).hi, 3.2)
