"""A model file appears whole or not at all, and always with the same bytes."""

import os
import stat

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support.models import load, parse, random_feed, run

from ptq.errors import ModelError
from ptq.graph import save
from ptq.graph.load import load_model, model_files
from ptq.graph.normalize import normalize
from ptq.graph.save import save_model, to_bytes

NET = """
    g (float[N, 16] x, bool c) => (float[N, 16] y)
    <float[16, 32] w, float[32] b, float[32, 16] v, uint4[33, 31] packed, float[40, 40] unread> {
      h = MatMul (x, w)
      i = Add (h, b)
      j = MatMul (i, v)
      y = If (c) <then_branch = t () => (float[N, 16] u) { u = Neg (j) },
                  else_branch = e () => (float[N, 16] z) { z = Abs (j) }>
    }"""


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("external", [None, False, True])
def test_round_trip(tmp_path, external):
    model = load(NET)
    feed = random_feed(model)
    path = tmp_path / "out.onnx"
    save_model(model, path, external=external)
    expected = ["out.onnx", "out.onnx.data"] if external else ["out.onnx"]
    assert files(tmp_path) == expected
    assert [file.name for file in model_files(path)] == expected
    onnx.checker.check_model(str(path))
    np.testing.assert_array_equal(run(path, feed)[0], run(model, feed)[0])
    again = load_model(path)
    for name, value in model.graph.initializers.items():
        np.testing.assert_array_equal(
            again.graph.initializers[name].const_value.numpy(), value.const_value.numpy()
        )


@pytest.mark.parametrize("external", [False, True])
def test_the_same_bytes_every_time(tmp_path, external):
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        model = load(NET, opset=13)
        normalize(model)
        save_model(model, folder / "out.onnx", external=external)
        contents.append([file.read_bytes() for file in model_files(folder / "out.onnx")])
        assert to_bytes(model) == to_bytes(model)
    assert contents[0] == contents[1]


def test_saving_does_not_change_the_model(tmp_path):
    model = load(NET)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    save_model(model, tmp_path / "out.onnx", external=True)
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    assert model.ir_version == 8


def test_data_is_aligned_and_small_tensors_stay_inside(tmp_path):
    save_model(load(NET), path := tmp_path / "out.onnx", external=True)
    proto = onnx.ModelProto.FromString(path.read_bytes())
    offsets = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            offsets[tensor.name] = int({e.key: e.value for e in tensor.external_data}["offset"])
    assert sorted(offsets) == ["unread", "v", "w"]
    assert all(offset % 64 == 0 for offset in offsets.values())


def test_external_tensors_are_copied_and_do_not_depend_on_their_source(tmp_path):
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    copy.mkdir()
    save_model(load(NET), source / "in.onnx", external=True)
    for external in (False, True):
        save_model(load_model(source / "in.onnx"), copy / f"{external}.onnx", external=external)
    feed = random_feed(load(NET))
    expected = run(load(NET), feed)[0]
    for file in source.iterdir():
        file.unlink()
    for external in (False, True):
        np.testing.assert_array_equal(run(copy / f"{external}.onnx", feed)[0], expected)


def test_a_model_may_overwrite_its_own_data(tmp_path):
    path = tmp_path / "model.onnx"
    save_model(load(NET), path, external=True)
    feed = random_feed(load(NET))
    save_model(load_model(path), path, external=True)
    np.testing.assert_array_equal(run(path, feed)[0], run(load(NET), feed)[0])


def test_to_bytes_keeps_references(tmp_path):
    save_model(load(NET), tmp_path / "in.onnx", external=True)
    content = to_bytes(load_model(tmp_path / "in.onnx"))
    assert b"in.onnx.data" in content
    assert len(content) < 5000


def test_large_models_get_external_data_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "_LARGEST_INLINE", 5000)
    save_model(load(NET), tmp_path / "out.onnx")
    assert files(tmp_path) == ["out.onnx", "out.onnx.data"]


@pytest.mark.parametrize(
    ("opset", "expected"), [(13, 10), (21, 10), (22, 10), (23, 11), (24, 12), (26, 13)]
)
def test_ir_version_is_what_the_opset_needs(opset, expected):
    model = load("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=opset)
    assert onnx.ModelProto.FromString(to_bytes(model)).ir_version == expected
    assert run(onnx.ModelProto.FromString(to_bytes(model)), random_feed(model))


def test_ir_versions_agree_with_onnx():
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        if opset > 21:
            assert save._NEEDED_IR_VERSION.get(opset, save._IR_VERSION) == ir_version


def test_permissions_are_those_of_any_new_file(tmp_path):
    save_model(load(NET), tmp_path / "out.onnx")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.onnx", "plain")}
    assert len(modes) == 1


# ------------------------------------------------------------------ failures leave nothing


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("where", ["serialize", "fsync"])
def test_nothing_is_left_and_the_old_file_stays(tmp_path, monkeypatch, error, external, where):
    path = tmp_path / "out.onnx"
    save_model(load(NET), path, external=external)
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_, **__):
        raise error

    target = (ir.serde, "serialize_model") if where == "serialize" else (os, "fsync")
    monkeypatch.setattr(*target, fail)
    with pytest.raises(ModelError if error is OSError else error):
        save_model(load(NET, seed=1), path, external=external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == old


@pytest.mark.parametrize("step", [0, 1])
def test_a_model_is_never_found_beside_the_data_of_another(tmp_path, monkeypatch, step):
    path = tmp_path / "out.onnx"
    save_model(load(NET), path, external=True)
    real, steps = os.replace, []

    def interrupted(source, target):
        if len(steps) == step:
            raise KeyboardInterrupt
        steps.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(load(NET, seed=1), path, external=True)
    assert not path.exists()
    assert [name for name in files(tmp_path) if name.startswith(".")] == []


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ModelError, match=r"out\.onnx' cannot be written \(No such file"):
        save_model(load(NET), tmp_path / "none" / "out.onnx")


def test_a_model_that_protobuf_cannot_hold():
    model = ir.from_proto(parse("g (float[3] x) => (float[3] y) <float[3] w> { y = Add (x, w) }"))
    value = model.graph.initializers["w"]

    def never():
        raise AssertionError("read although it cannot be written")

    value.const_value = ir.LazyTensor(
        never, dtype=ir.DataType.INT8, shape=ir.Shape([2**31]), name="w"
    )
    with pytest.raises(ModelError, match="2 GB"):
        to_bytes(model)
