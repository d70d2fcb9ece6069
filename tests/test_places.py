"""Which files a run may write."""

from pathlib import Path

import pytest

from ptq.errors import ConfigError
from ptq.places import require_free, require_text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model.onnx", "data.npz", "old.onnx"):
        Path(name).write_text(name)
    Path("sub").mkdir()
    return tmp_path


def check(*outputs: str | None, force: bool = False, inputs=("data.npz",)) -> None:
    given = [None if output is None else Path(output) for output in outputs]
    require_free(given, Path("model.onnx"), inputs, force=force)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("outputs", [("new",), ("sub/new", None), ("a", "b"), ("sub/a", "a")])
def test_new_files_may_be_written(outputs):
    check(*outputs)


@pytest.mark.usefixtures("folder")
def test_old_files_may_be_replaced_by_force_only():
    with pytest.raises(ConfigError, match=r"'old.onnx' exists; give --force"):
        check("old.onnx")
    check("old.onnx", force=True)


@pytest.mark.parametrize("name", ["model.onnx", "sub/../model.onnx", "hard", "soft", "sub/soft"])
def test_the_model_is_never_replaced(folder, name):
    Path("hard").hardlink_to("model.onnx")
    Path("soft").symlink_to("model.onnx")
    Path("sub/soft").symlink_to("../model.onnx")
    with pytest.raises(ConfigError, match="is the float model itself"):
        check(name, force=True)
    with pytest.raises(ConfigError, match="is the float model itself"):
        check(str(folder / name), force=True)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("given", ["data.npz", Path("data.npz"), Path("sub/../data.npz")], ids=str)
def test_what_is_read_is_never_replaced(given):
    with pytest.raises(ConfigError, match=r"'data.npz' is read by this run"):
        check("new", "data.npz", inputs=[None, object(), "random", given], force=True)


@pytest.mark.usefixtures("folder")
def test_folders_links_and_pipes_are_never_replaced():
    import os

    Path("link").symlink_to("old.onnx")
    Path("dangling").symlink_to("nothing")
    os.mkfifo("pipe")
    with pytest.raises(ConfigError, match="'sub' is a folder"):
        check("sub", force=True)
    for name in ("link", "dangling", "pipe"):
        with pytest.raises(ConfigError, match=f"'{name}' is a link or a device"):
            check(name, force=True)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["none/x", "old.onnx/x", "none/deeper/x"])
def test_a_folder_must_be_there(name):
    with pytest.raises(ConfigError, match=f"folder '{Path(name).parent}' does not exist|'{name}'"):
        check(name)


@pytest.mark.usefixtures("folder")
def test_two_outputs_have_two_names():
    for first, second in (("x", "x"), ("x", "sub/../x"), ("sub/x", "sub/../sub/x")):
        with pytest.raises(ConfigError, match="give two names"):
            check(first, second)


@pytest.mark.usefixtures("folder")
def test_names_that_no_file_system_takes():
    with pytest.raises(ConfigError, match="File name too long; choose another name"):
        check("n" * 300)


def test_a_loop_of_links_is_refused(folder):
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    with pytest.raises(ConfigError, match="'a'"):
        check("a")
    with pytest.raises(ConfigError, match="a"):
        check("a/x")


def test_text_is_all_that_utf_8_can_spell():
    require_text(["a b", Path("ünï ✓"), None, object(), "random"])
    with pytest.raises(ConfigError, match=r"'x\\udcff' is no UTF-8 in the current locale"):
        require_text(["fine", "x\udcff"])
