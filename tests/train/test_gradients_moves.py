"""Gradients of operators that move values, against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(7)
X = RNG.normal(size=(2, 3, 4))

MOVES = {
    "reshape": lambda t, x: t.op("Reshape", x, [0, -1]),
    "flatten": lambda t, x: t.op("Flatten", x, axis=2),
    "squeeze": lambda t, x: t.op("Squeeze", t.op("Unsqueeze", x, [0, 2]), [2]),
    "reversed axes": lambda t, x: t.op("Transpose", x),
    "transposed": lambda t, x: t.op("Transpose", x, perm=[1, 2, 0]),
    "expanded": lambda t, x: t.op("Expand", t.op("Unsqueeze", x, [1]), [3, 1, 2, 1, 1]),
    "tiled": lambda t, x: t.op("Tile", x, [2, 1, 3]),
    "tiled once": lambda t, x: t.op("Tile", x, [1, 1, 1]),
    "concatenated": lambda t, x: t.op("Concat", x, t.op("Neg", x), 1.0 + 0 * X[:1], axis=0),
    "concatenated alone": lambda t, x: t.op("Concat", x, axis=-1),
    "split": lambda t, x: t.ops("Split", x, [1, 3], outputs=2, axis=-1),
    "split in equal parts": lambda t, x: t.ops("Split", x, outputs=2, axis=2, num_outputs=2),
    "split, one part read": lambda t, x: t.ops("Split", x, [1, 1, 1], outputs=3, axis=1)[1],
    "upper triangle": lambda t, x: t.op("Trilu", x, 1),
    "lower triangle": lambda t, x: t.op("Trilu", x, upper=0),
    "cumulative sums": lambda t, x: t.op("CumSum", x, np.array(1)),
    "sums of what follows": lambda t, x: t.op("CumSum", x, np.array(-1), exclusive=1, reverse=1),
    "largest": lambda t, x: t.ops("TopK", x, [2], outputs=2, axis=1)[0],
    "smallest": lambda t, x: t.ops("TopK", x, [3], outputs=2, largest=0)[0],
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move(name: str) -> None:
    check_gradients(MOVES[name], {"x": X})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    x = RNG.normal(size=(1, 8, 2, 1))
    check_gradients(lambda t, x: t.op("DepthToSpace", x, blocksize=2, mode=mode), {"x": x})


def test_space_to_depth() -> None:
    x = RNG.normal(size=(1, 2, 2, 4))
    check_gradients(lambda t, x: t.op("SpaceToDepth", x, blocksize=2), {"x": x})


CUT = st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -2, -1, 1, 2, 3]))


@settings(max_examples=40)
@given(cuts=st.lists(CUT, min_size=1, max_size=3), first=st.integers(0, 2))
def test_slices_are_those_of_numpy_backwards(cuts: list[tuple[int, int, int]], first: int) -> None:
    axes = [(first + i) % 3 - 3 * (i % 2) for i in range(len(cuts))]
    starts, ends, steps = (list(part) for part in zip(*cuts, strict=True))
    expected, where = np.zeros((5, 4, 6)), [slice(None)] * 3
    for axis, cut in zip(axes, cuts, strict=True):
        where[axis] = slice(*cut)
    x = RNG.normal(size=expected.shape)
    found = Differentiated(lambda t, x: t.op("Slice", x, starts, ends, axes, steps), {"x": x})
    shape = x[tuple(where)].shape
    if 0 in shape:
        assert "x" not in found.of
        return
    expected[tuple(where)] = np.random.default_rng(0).normal(size=shape)  # the loss's weights
    np.testing.assert_array_equal(found.gradient("x"), expected)


def test_slices_without_axes_and_steps() -> None:
    check_gradients(lambda t, x: t.op("Slice", x, [0, 1], [1, -1]), {"x": X})
