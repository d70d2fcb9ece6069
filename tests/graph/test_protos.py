"""Serialized tensors, as the model zoo ships them."""

import numpy as np
import pytest
from onnx import numpy_helper

from ptq.graph.protos import parse_tensor


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
def test_a_tensor_has_its_name_and_value(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    name, found = parse_tensor(numpy_helper.from_array(array, "input_0").SerializeToString())
    assert name == "input_0"
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("content", [b"not a tensor", b"\xff" * 9, b"\x0a\xff\xff\xff\xff\x0f"])
def test_other_bytes_are_a_value_error(content):
    with pytest.raises(ValueError, match="not a serialized tensor"):
        parse_tensor(content)


def test_a_tensor_that_is_cut_off_is_a_value_error():
    content = numpy_helper.from_array(np.ones((4, 5), np.float32), "x").SerializeToString()
    for end in (1, 10, len(content) - 1):
        with pytest.raises(ValueError, match="not a serialized tensor"):
            parse_tensor(content[:end])
