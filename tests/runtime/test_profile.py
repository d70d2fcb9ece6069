"""What each kernel costs: every kernel is there once, and nothing is left behind."""

import tempfile

import numpy as np
import onnx
import pytest
from support.models import parse, write

from ptq.errors import DataError, ModelError, VerificationError
from ptq.runtime.profile import (
    _Arguments,
    _Event,
    _own_times,
    _typical,
    profile_interleaved,
    profile_kernels,
)

SMALL = "g (float[N, 2] x) => (float[N, 2] y) { [neg] t = Neg (x) [exp] y = Exp (t) }"
FEED = {"x": np.ones((1, 2), np.float32)}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_node_of_a_real_network_is_in_one_kernel(digits):
    found = profile_kernels(digits.model, {"input": digits.images()[:1]}, runs=3)
    nodes = [n for n in onnx.load(digits.model).graph.node if n.op_type != "Constant"]
    assert sorted(name for kernel in found for name in kernel.names) == sorted(
        node.name for node in nodes
    )
    assert sum(kernel.op_type == "Conv" for kernel in found) == 12
    assert sum(kernel.ms for kernel in found) > 0


def test_kernels_come_in_the_order_in_which_they_run():
    found = profile_kernels(parse(SMALL).SerializeToString(), FEED, runs=2)
    assert [(k.name, k.op_type, k.names, k.tensors) for k in found] == [
        ("neg", "Neg", {"neg"}, {"t"}),
        ("exp", "Exp", {"exp"}, {"y"}),
    ]
    assert all(kernel.ms >= 0 for kernel in found)


def test_a_kernel_that_does_more_takes_more():
    # 300 times the multiplications; what the profiler adds is the same for both
    text = """
    g (float[200,200] x) => (float[200,200] y) <float[200,200] w>
    { [heavy] t = MatMul (x, w) [light] y = Neg (t) }
    """
    feed = {"x": np.ones((200, 200), np.float32)}
    heavy, light = profile_kernels(parse(text).SerializeToString(), feed)
    assert (heavy.name, light.name) == ("heavy", "light")
    assert heavy.ms > light.ms


def test_models_are_profiled_in_turn_each_on_its_own_feed():
    other = "g (float[3] a) => (float[3] b) { [abs] b = Abs (a) }"
    models = [parse(SMALL).SerializeToString(), parse(other).SerializeToString()]
    found = profile_interleaved(models, [FEED, {"a": np.ones(3, np.float32)}], runs=2)
    assert [[k.name for k in kernels] for kernels in found] == [["neg", "exp"], ["abs"]]


def test_nodes_without_names_are_told_apart(tmp_path):
    path = write(tmp_path / "m.onnx", "g (float[4] x) => (float[4] y) { t = Exp (x) y = Exp (t) }")
    found = profile_kernels(path, {"x": np.ones(4, np.float32)}, runs=2)
    assert [kernel.names for kernel in found] == [{"Exp:t"}, {"Exp:y"}]


@pytest.mark.parametrize("name", ["", "add"])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_external_data_is_found(tmp_path, name, as_bytes):
    model = parse(f"g (float[4] x) => (float[4] y) <float[4] w> {{ [{name}] y = Add (x, w) }}")
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    given = path.read_bytes() if as_bytes else path
    [kernel] = profile_kernels(
        given, {"x": np.ones(4, np.float32)}, runs=2, folder=tmp_path if as_bytes else None
    )
    assert kernel.op_type == "Add"


def test_what_runs_in_a_loop_is_one_kernel(tmp_path):
    text = """
    g (float[4] x) => (float[4] y) <int64 n = {5}, bool go = {1}> {
      [loop] y = Loop (n, go, x) <body = b (int64 i, bool c, float[4] u) => (bool d, float[4] v) {
        d = Identity (c) [inner] v = Exp (u)
      }>
    }
    """
    found = profile_kernels(parse(text).SerializeToString(), {"x": np.zeros(4, np.float32)}, runs=2)
    assert [k.op_type for k in found if k.name == "inner"] == ["Exp"]
    assert sum(k.op_type == "Loop" for k in found) == 1


def event(op_type, ts, dur):
    return _Event("Node", f"{op_type}_kernel_time", ts, dur, _Arguments(op_type))


def test_the_time_of_a_branch_is_not_counted_twice():
    events = [event("Neg", 0, 5), event("Exp", 12, 3), event("If", 20, 2)]
    # onnxruntime writes an If when it ends, after what is in it
    events += [event("Add", 24, 6), event("If", 10, 30), event("Abs", 40, 1)]
    own = {(e.args.op_name, e.ts): us for e, us in _own_times(events)}
    assert own == {
        ("Neg", 0): 5,
        ("If", 10): 30 - 3 - 2 - 6,
        ("Exp", 12): 3,
        ("If", 20): 2,
        ("Add", 24): 6,
        ("Abs", 40): 1,
    }


def test_a_busy_moment_is_not_counted():
    assert _typical(np.array([4, 5, 900, 5, 800, 4, 700])) == pytest.approx((4 + 4 + 5 + 5) / 4)
    assert _typical(np.array([7])) == 7


def test_nothing_is_left_on_disk(scratch):
    profile_kernels(parse(SMALL).SerializeToString(), FEED, runs=2)
    assert not list(scratch.iterdir())


def test_nothing_is_left_on_disk_by_a_failure_either(scratch, tmp_path):
    with pytest.raises(DataError, match="onnxruntime fails on the feed"):
        profile_kernels(parse(SMALL).SerializeToString(), {"x": np.ones(3, np.float32)})
    with pytest.raises(ModelError):
        profile_kernels(b"no model", FEED)
    unknown = parse(SMALL)
    unknown.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(VerificationError):
        profile_kernels(unknown.SerializeToString(), FEED)
    assert not list(scratch.iterdir())
