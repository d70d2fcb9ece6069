"""What to leave in float, against trying every set of layers."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq.search.spare import least_noise

LAYERS = 5


@st.composite
def problems(draw):
    parts = draw(st.integers(1, 8))
    share = st.sets(st.integers(0, LAYERS - 1), min_size=1, max_size=3).map(sorted)
    touching = draw(st.lists(share, min_size=parts, max_size=parts))
    noise = draw(st.lists(st.integers(0, 100), min_size=parts, max_size=parts))
    work = draw(st.lists(st.integers(1, 100), min_size=LAYERS, max_size=LAYERS))
    limit = draw(st.integers(0, 300)) + 0.5  # sums are whole: none is at the limit
    return np.array(noise, float), touching, np.array(work, float), limit


def remaining(noise, touching, chosen):
    kept = [not set(layers) <= set(chosen) for layers in touching]
    return noise[np.array(kept)].sum()


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_set_of_layers_leaves_less_noise_within_the_work(problem):
    noise, touching, work, most = problem
    chosen = least_noise(noise, touching, work, most)
    assert work[list(chosen)].sum() <= most
    possible = [
        remaining(noise, touching, some)
        for count in range(LAYERS + 1)
        for some in combinations(range(LAYERS), count)
        if work[list(some)].sum() <= most
    ]
    spared, best = (
        noise.sum() - left for left in (remaining(noise, touching, chosen), min(possible))
    )
    assert spared >= best * 0.98 - 1e-6


def test_a_tensor_is_spared_only_where_all_that_round_it_are_in_float():
    noise, touching = np.array([1.0, 0.1]), [(0, 1), (2,)]
    assert least_noise(noise, touching, np.array([1.0, 1.0, 1.0]), 1.5) == (2,)
    assert least_noise(noise, touching, np.array([1.0, 1.0, 1.0]), 2.5) == (0, 1)
