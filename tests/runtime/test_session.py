"""Sessions open and fail in one way."""

import numpy as np
import onnx
import pytest
from support.models import parse

from ptq.errors import DataError, VerificationError
from ptq.runtime.session import open_session, run

TWO = "g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { y = Neg (x) z = Abs (x) }"


def test_outputs_come_in_the_order_asked_for():
    session = open_session(parse(TWO).SerializeToString())
    x = np.array([[1, -2]], np.float32)
    assert [a.tolist() for a in run(session, {"x": x})] == [[[-1, 2]], [[1, 2]]]
    assert [a.tolist() for a in run(session, {"x": x}, ["z"])] == [[[1, 2]]]
    assert [a.tolist() for a in run(session, {"x": x}, ["z", "y"])] == [[[1, 2]], [[-1, 2]]]


def test_a_file_is_as_good_as_its_bytes(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(parse(TWO).SerializeToString())
    assert [o.name for o in open_session(path).get_outputs()] == ["y", "z"]


def test_external_data_is_found_beside_a_model_of_bytes(tmp_path):
    model = parse("g (float[4] x) => (float[4] y) <float[4] w> { y = Add (x, w) }")
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )
    session = open_session((tmp_path / "m.onnx").read_bytes(), folder=tmp_path)
    [found] = run(session, {"x": np.zeros(4, np.float32)})
    np.testing.assert_array_equal(
        found, onnx.numpy_helper.to_array(model.graph.initializer[0], str(tmp_path))
    )


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a"])
def test_what_is_no_model_is_an_error(content):
    with pytest.raises(VerificationError, match="onnxruntime does not load the model: "):
        open_session(content)


def test_a_model_that_the_runtime_refuses_is_an_error_in_one_line(tmp_path):
    model = parse(TWO)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(VerificationError) as caught:
        open_session(model.SerializeToString())
    assert "NoSuchOperator" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "[ONNXRuntimeError]" not in str(caught.value)
    with pytest.raises(VerificationError):
        open_session(tmp_path / "missing.onnx")


@pytest.mark.parametrize(
    "feed",
    [
        {},
        {"x": np.zeros((1, 3), np.float32)},
        {"x": np.zeros((1, 2))},
        {"x": np.zeros((1, 2), np.float32), "extra": np.zeros(1, np.float32)},
    ],
)
def test_a_feed_that_fails_is_an_error_that_says_where(feed):
    session = open_session(parse(TWO).SerializeToString())
    with pytest.raises(DataError, match="onnxruntime fails on sample 3: "):
        run(session, feed, where="sample 3")


def test_optimizations_can_be_chosen_and_their_result_written(tmp_path):
    model = parse("g (float[4] x) => (float[4] y) <float[4] w> { t = Add (w, w) y = Mul (x, t) }")
    for level, count in (("disabled", 2), ("basic", 1), ("all", 1)):
        path = tmp_path / f"{level}.onnx"
        open_session(model.SerializeToString(), optimization=level, optimized=path)
        assert len(onnx.load(path).graph.node) == count
