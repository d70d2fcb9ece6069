import math

import numpy as np

from ptq.stats.minmax import MinMax


def test_extremes_and_count():
    seen = MinMax.of(np.array([[3, -2], [0, 5]], np.float32))
    assert (seen.lo, seen.hi, seen.count, seen.max_abs) == (-2.0, 5.0, 4, 5.0)


def test_nothing_seen_is_an_empty_interval():
    assert MinMax.of(np.zeros(0, np.float32)) == MinMax(math.inf, -math.inf, 0)
    assert MinMax().max_abs == 0


def test_minus_zero_is_zero():
    assert math.copysign(1, MinMax.of(np.array([-0.0], np.float32)).lo) == 1
