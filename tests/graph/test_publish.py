"""A draft appears whole at its destination, or not at all."""

import os
import stat

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from support.models import load
from support.nets import normal

from ptq.errors import ConfigError, VerificationError
from ptq.graph.publish import Draft

NET = "g (float[N, 64] x) => (float[N, 64] y) <float[64, 64] w> { y = MatMul (x, w) }"


def run(path):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": normal((2, 64))})[0]


@pytest.fixture
def split(monkeypatch):
    """Weights go to files of their own."""
    monkeypatch.setattr("ptq.graph.save._LARGEST_INLINE", 100)


def test_nothing_is_at_the_destination_before_it_is_published(tmp_path):
    with Draft(tmp_path / "out.onnx") as draft:
        draft.save(load(NET))
        assert not (tmp_path / "out.onnx").exists()
        assert draft.path.parent.parent == tmp_path
        assert draft.path.parent.name.startswith(".")
        draft.publish()
        assert (tmp_path / "out.onnx").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    assert run(tmp_path / "out.onnx").shape == (2, 64)


def test_external_data_goes_with_the_model(tmp_path, split):
    with Draft(tmp_path / "out.onnx") as draft:
        draft.save(load(NET))
        assert [p.name for p in draft.files] == ["out.onnx", "out.onnx.data"]
        assert draft.size_bytes == sum(p.stat().st_size for p in draft.files) > 64 * 64 * 4
        draft.check()
        draft.publish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    run(tmp_path / "out.onnx")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_block_nothing_is_left(tmp_path, error, split):
    with pytest.raises(error), Draft(tmp_path / "out.onnx") as draft:
        draft.save(load(NET))
        raise error
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_draft(tmp_path):
    with Draft(tmp_path / "out.onnx") as draft:
        draft.save(load(NET))
        draft.save(load(NET.replace("MatMul (x, w)", "Gemm (x, w)")))
        draft.publish()
    [node] = onnx.load(tmp_path / "out.onnx").graph.node
    assert node.op_type == "Gemm"


def test_an_old_file_lives_until_the_new_one_is_there(tmp_path):
    destination = tmp_path / "out.onnx"
    destination.write_bytes(b"old")
    with pytest.raises(ValueError, match="no"), Draft(destination) as draft:
        draft.save(load(NET))
        raise ValueError("no")
    assert destination.read_bytes() == b"old"


def test_the_file_has_the_usual_permissions(tmp_path):
    with Draft(tmp_path / "out.onnx") as draft:
        draft.save(load(NET))
        draft.publish()
    (tmp_path / "other").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.onnx", "other")]
    assert modes[0] == modes[1]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot write to '.*nowhere': .*choose another place"):
        Draft(tmp_path / "nowhere" / "out.onnx").__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write to"):
        Draft(tmp_path / "out.onnx").__enter__()


def test_what_the_checker_refuses_is_an_error_in_one_line(tmp_path):
    model = load(NET)
    with Draft(tmp_path / "out.onnx") as draft:
        draft.save(model)
        draft.check()
        model.graph[0].op_type = "NoSuchOperator"
        draft.save(model)
        with pytest.raises(VerificationError, match=r"checker refuses.*NoSuchOperator") as caught:
            draft.check()
    assert "\n" not in str(caught.value)


def test_a_model_in_the_current_folder(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    with Draft(Path("out.onnx")) as draft:
        draft.save(load(NET))
        draft.publish()
    np.testing.assert_array_equal(run("out.onnx"), run(tmp_path / "out.onnx"))
