"""Patches times the weight are what the convolution gives."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ptq.numerics.patches import Window, patches, rows_of

WINDOWS = {
    "plain": (Window((3, 3), (1, 1), (1, 1), (0, 0, 0, 0)), (2, 4, 7, 6)),
    "strided and padded": (Window((3, 2), (2, 1), (1, 1), (1, 0, 2, 1)), (1, 4, 7, 6)),
    "dilated": (Window((3, 3), (1, 2), (2, 1), (1, 1, 1, 1)), (2, 4, 9, 6)),
    "grouped": (Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), groups=2), (2, 4, 5, 5)),
    "depthwise": (Window((5, 5), (2, 2), (1, 1), (2, 2, 2, 2), groups=4), (2, 4, 8, 8)),
    "one dimension": (Window((4,), (3,), (2,), (2, 1)), (2, 4, 20)),
    "same, the rest behind": (Window((4, 4), (2, 3), (1, 1), (), "SAME_UPPER"), (1, 4, 9, 7)),
    "same, the rest before": (Window((4, 4), (2, 3), (1, 1), (), "SAME_LOWER"), (1, 4, 9, 7)),
    "valid": (Window((2, 2), (1, 1), (1, 1), (), "VALID"), (1, 4, 4, 4)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_products_are_those_of_the_convolution(name):
    window, shape = WINDOWS[name]
    rng = np.random.default_rng(3)
    x = rng.integers(-200, 200, shape)
    w = rng.integers(-5, 5, (8, 4 // window.groups, *window.kernel))
    pads = {"pads": window.pads} if window.pads else {"auto_pad": window.auto_pad}
    node = onnx.helper.make_node(
        "Conv", ["x", "w"], ["y"], kernel_shape=window.kernel, strides=window.strides,
        dilations=window.dilations, group=window.groups, **pads,
    )  # fmt: skip
    given = {"x": x.astype(np.float32), "w": w.astype(np.float32)}
    (wanted,) = ReferenceEvaluator(node).run(None, given)
    found = patches(x, window, 10**6)
    rows = w.reshape(window.groups, 8 // window.groups, -1)
    products = np.einsum("gok,gpk->gop", rows, found).reshape(8, len(x), -1)
    np.testing.assert_array_equal(np.moveaxis(products, 1, 0).reshape(wanted.shape), wanted)


def test_a_sample_is_some_of_the_patches():
    window, shape = WINDOWS["grouped"]
    x = np.random.default_rng(3).integers(-200, 200, shape)
    every = {row.tobytes() for row in patches(x, window, 10**6)[0]}
    few = patches(x, window, 7)
    assert few.shape == (2, 7, 18)
    assert {row.tobytes() for row in few[0]} <= every
    assert len({row.tobytes() for row in few[0]}) == 7


def test_rows_of_a_batch_of_matrices():
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(rows_of(x, 10), x.reshape(1, 6, 4))
    np.testing.assert_array_equal(rows_of(x, 3), x.reshape(1, 6, 4)[:, ::2])
    assert rows_of(x[:0], 3).shape == (1, 0, 4)
