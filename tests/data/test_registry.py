import subprocess
import sys

import pytest

from ptq.data import data_forms, data_readers, open_dataset
from ptq.errors import ConfigError, DataError


def test_every_reader_is_found_and_says_what_it_reads():
    readers = data_readers()
    assert {reader.__name__ for reader in readers} == {
        "ArrayFile",
        "FunctionDataset",
        "ImageDirectory",
        "ModelZooFolders",
        "NpyDirectory",
        "NpzDirectory",
        "RandomDataset",
    }
    assert len({reader.kind for reader in readers}) == len(readers)
    assert all(reader.form in data_forms() for reader in readers)
    assert "\n" not in data_forms()


@pytest.mark.parametrize("source", ["", "no/such/file.npz", "no-such:thing", "nowhere"])
def test_missing_data_is_an_error_that_says_how_to_supply_it(spec, source):
    with pytest.raises(ConfigError, match=r"give one of: .*an .npz file .*random") as caught:
        open_dataset(source, [spec()])
    assert source in str(caught.value)


def test_an_empty_directory_is_an_error_that_says_what_to_put_in(tmp_path, spec):
    (tmp_path / ".gitkeep").touch()
    with pytest.raises(DataError, match="is empty; give one of: "):
        open_dataset(tmp_path, [spec()])


def test_a_file_of_no_known_kind_is_an_error(tmp_path, spec):
    (tmp_path / "model.onnx").touch()
    for source, what in ((tmp_path, "directory"), (tmp_path / "model.onnx", "file")):
        with pytest.raises(ConfigError, match=f"{what} '.*' holds no data of a known kind; give"):
            open_dataset(source, [spec()])


def test_a_name_too_long_for_the_file_system_is_an_error(spec):
    with pytest.raises(
        ConfigError, match=r"cannot read 'aaa.*: File name too long; check the path"
    ):
        open_dataset("a" * 300, [spec()])


def test_importing_the_room_imports_nothing_heavy():
    heavy = "onnx onnx_ir onnxruntime scipy PIL click tqdm"
    code = (
        "import sys, ptq.data; ptq.data.data_readers(); "
        f"print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
