import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.data import InputSpec, check_feed, hash_feed
from ptq.data.feeds import format_shape
from ptq.errors import DataError

WHERE = "calib.npz sample 3"


def f32(*shape):
    return np.zeros(shape, np.float32)


def refused(feed, *inputs):
    with pytest.raises(DataError) as caught:
        check_feed(feed, inputs, WHERE)
    message = str(caught.value)
    assert message.startswith(WHERE)
    assert "\n" not in message
    return message.removeprefix(f"{WHERE}: ")


def test_a_fitting_feed_passes_untouched_in_the_order_of_the_inputs(spec):
    feed = {"b": f32(1, 3, 4, 5), "a": f32(2, 3, 4, 5)}
    checked = check_feed(feed, [spec("a"), spec("b")], WHERE)
    assert list(checked) == ["a", "b"]
    assert all(checked[name] is feed[name] or checked[name].base is feed[name] for name in feed)


def test_missing_and_unexpected_inputs_name_both_sides(spec):
    assert refused({"mask": f32(1)}, spec("ids", ("N",)), spec("mask", ("N",))) == (
        "no array for input 'ids'; the data has: mask; the model wants: ids, mask"
    )
    assert refused({"x": f32(1), "z": f32(1)}, spec("x", ("N",))) == (
        "the model has no input 'z'; the data has: x, z; the model wants: x"
    )
    assert refused({}, spec("x")) == (
        "no array for input 'x'; the data has: nothing; the model wants: x"
    )


@pytest.mark.parametrize(
    ("have", "want", "message"),
    [
        (
            (3, 224, 224),
            ("N", 3, 224, 224),
            "has shape (3, 224, 224), the model wants (N, 3, 224, 224); add a leading batch axis",
        ),
        ((7,), (1, 7), "has shape (7,), the model wants (1, 7); add a leading batch axis"),
        ((), (None,), "has shape (), the model wants (?,); add a leading batch axis"),
        ((1, 7), (7,), "has shape (1, 7), the model wants (7,); drop the leading axis"),
        (
            (9, 1, 7),
            (1, 7),
            "has shape (9, 1, 7), the model wants (1, 7); give each sample a feed of its own",
        ),
        (
            (1, 7),
            (8, 7),
            "has shape (1, 7), the model wants (8, 7); "
            "the model fixes its batch, so put 8 in each feed",
        ),
        (
            (1, 8, 9, 3),
            ("N", 3, 8, 9),
            "has shape (1, 8, 9, 3), the model wants (N, 3, 8, 9); "
            "the data is channels-last, so transpose it with x.transpose(0, 3, 1, 2)",
        ),
        (
            (1, 3, 8, 9),
            (-1, 8, 9, 3),
            "has shape (1, 3, 8, 9), the model wants (?, 8, 9, 3); "
            "the data is channels-first, so transpose it with x.transpose(0, 2, 3, 1)",
        ),
        (
            (1, 3, 9, 9),
            ("N", 3, 8, 8),
            "has shape (1, 3, 9, 9), the model wants (N, 3, 8, 8); "
            "prepare the data in the shape the model wants",
        ),
    ],
)
def test_a_wrong_shape_names_both_sides_and_the_usual_remedy(spec, have, want, message):
    assert refused({"x": f32(*have)}, spec(shape=want)) == f"input 'x' {message}"


def test_the_transpose_it_suggests_fits(spec):
    last, first = spec(shape=("N", 8, 9, 3)), spec(shape=("N", 3, 8, 9))
    check_feed({"x": f32(1, 8, 9, 3).transpose(0, 3, 1, 2)}, [first], WHERE)
    check_feed({"x": f32(1, 3, 8, 9).transpose(0, 2, 3, 1)}, [last], WHERE)


def test_any_shape_fits_an_input_of_unknown_rank(spec):
    for shape in ((), (3,), (1, 2, 3)):
        check_feed({"x": f32(*shape)}, [spec(shape=None)], WHERE)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("float32", "float64"),
        ("int32", "int64"),
        ("int64", "int32"),
        ("uint8", "int16"),
    ],
)
def test_a_harmless_cast_is_noticed(spec, have, want):
    notices = []
    values = np.array([1, 0, 3], have)
    checked = check_feed({"x": values}, [spec(shape=("N",), dtype=want)], WHERE, notices.append)
    assert checked["x"].dtype == want
    np.testing.assert_array_equal(checked["x"], values)
    assert notices == [f"input 'x' is cast from {have} to {want}"]


def test_another_byte_order_is_not_another_type(spec):
    notices = []
    feed = check_feed({"x": np.array([1.5], ">f4")}, [spec(shape=("N",))], WHERE, notices.append)
    assert feed["x"].dtype.isnative
    assert feed["x"] == 1.5
    assert notices == []


@pytest.mark.parametrize(
    ("have", "want", "message"),
    [
        (np.uint8([1]), "float32", "is uint8, the model wants float32; convert and scale it as"),
        (np.float32([1]), "int64", "is float32, the model wants int64; save it as int64"),
        (np.float32([1]), "float16", "is float32, the model wants float16; save it as float16"),
        (np.array([True]), "int64", "is bool, the model wants int64; save it as int64"),
        (np.array(["a"]), "float32", "is <U1, the model wants float32; save it as float32"),
        (np.int64([5, 3 << 31]), "int32", "wants int32, which cannot hold 6442450944; check"),
        (np.int64([-1]), "uint64", "wants uint64, which cannot hold -1; check"),
        (np.float64([1e300]), "float32", "which cannot hold a value so large; check"),
    ],
)
def test_a_cast_that_would_lose_something_is_an_error(spec, have, want, message):
    assert message in refused({"x": have}, spec(shape=("N",), dtype=want))


def test_infinity_survives_the_cast(spec):
    feed = check_feed({"x": np.array([np.inf, np.nan])}, [spec(shape=("N",))], WHERE)
    assert np.isposinf(feed["x"][0])
    assert np.isnan(feed["x"][1])


def test_strings_pass_in_either_of_numpys_forms(spec):
    wanted = spec(shape=("N",), dtype=object)
    for words in (np.array(["a", "bc"]), np.array(["a", "bc"], object)):
        assert check_feed({"x": words}, [wanted], WHERE)["x"].tolist() == ["a", "bc"]


def test_shapes_are_written_as_onnx_tools_do():
    assert format_shape(("N", 3, None, -1, "")) == "(N, 3, ?, ?, ?)"
    assert format_shape((2,)) == "(2,)"
    assert format_shape(()) == "()"
    assert format_shape(None) == "(any shape)"


def digest(*feeds):
    hasher = hashlib.sha256()
    for feed in feeds:
        hash_feed(hasher, feed)
    return hasher.hexdigest()


ARRAYS = st.dictionaries(
    st.text(max_size=3),
    hnp.arrays(
        st.sampled_from(["f4", "i8", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=2),
    ),
    max_size=2,
)


def same(a, b):
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes())
        for n in a
    )


@given(a=st.lists(ARRAYS, max_size=3), b=st.lists(ARRAYS, max_size=3))
def test_only_equal_feeds_hash_alike(a, b):
    equal = len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    assert (digest(*a) == digest(*b)) == equal


def test_the_hash_ignores_memory_order_byte_order_and_the_order_of_the_inputs(rng):
    x, y = rng.random((2, 3), np.float32), np.arange(3)
    variant = {"y": y.astype(">i8"), "x": np.asfortranarray(x)}
    assert digest({"x": x, "y": y}) == digest(variant)


def test_the_hash_tells_apart_shape_type_name_order_and_value():
    zeros = f32(2, 2)
    different = [
        [{"x": zeros}],
        [{"x": zeros.reshape(4)}],
        [{"x": zeros.view(np.int32)}],
        [{"y": zeros}],
        [{"x": zeros}, {"x": zeros}],
        [{"x": zeros + 1}, {"x": zeros}],
        [{"x": zeros}, {"x": zeros + 1}],
        [],
    ]
    assert len({digest(*feeds) for feeds in different}) == len(different)


def test_strings_hash_by_value():
    assert digest({"x": np.array(["a", "bc"])}) == digest({"x": np.array(["a", "bc"], object)})
    assert digest({"x": np.array(["a", "bc"])}) != digest({"x": np.array(["ab", "c"])})


def test_the_batch_is_one_unless_fixed():
    float32 = np.dtype(np.float32)
    shapes = {(8, 3): 8, ("N", 3): 1, (None, 3): 1, (-1, 3): 1, (): 1, None: 1}
    assert {shape: InputSpec("x", float32, shape).batch for shape in shapes} == shapes
