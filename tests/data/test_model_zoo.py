import io

import numpy as np
import pytest

from ptq.data import open_dataset
from ptq.errors import ConfigError, DataError


def serialize(name, array):
    stream = io.BytesIO()
    np.save(stream, array)
    return name.encode() + b"\0" + stream.getvalue()


def parse(content):
    """Stand in for the parser of TensorProto, which may not be imported here."""
    name, separator, array = content.partition(b"\0")
    if not separator:
        raise ValueError("no tensor")
    return name.decode(), np.load(io.BytesIO(array))


@pytest.fixture
def write(tmp_path):
    def make(folder, *tensors):
        directory = tmp_path / folder
        directory.mkdir()
        for i, (name, array) in enumerate(tensors):
            (directory / f"input_{i}.pb").write_bytes(serialize(name, array))
        (directory / "output_0.pb").write_bytes(b"not to be read")
        return directory

    return make


@pytest.fixture
def inputs(spec):
    return [spec("a", ("N",)), spec("b", ("N",))]


def f32(*values):
    return np.array(values, np.float32)


def test_tensors_go_by_name_if_they_have_the_names_of_inputs(tmp_path, write, inputs):
    write("test_data_set_0", ("b", f32(2)), ("a", f32(1)))
    feed = next(iter(open_dataset(tmp_path, inputs, tensor_parser=parse)))
    assert (feed["a"], feed["b"]) == (1, 2)


@pytest.mark.parametrize("names", [("", ""), ("a", "a"), ("b", "other")])
def test_tensors_go_by_number_otherwise(tmp_path, write, inputs, names):
    write("test_data_set_0", (names[0], f32(1)), (names[1], f32(2)))
    feed = next(iter(open_dataset(tmp_path, inputs, tensor_parser=parse)))
    assert (feed["a"], feed["b"]) == (1, 2)


def test_folders_and_inputs_come_in_order_of_their_numbers(tmp_path, write, spec):
    inputs = [spec(f"i{i}", ("N",)) for i in range(11)]
    for number in (10, 9):
        write(f"test_data_set_{number}", *[("", f32(number, i)) for i in range(11)])
    (tmp_path / "model.onnx").write_bytes(b"")
    feeds = list(open_dataset(tmp_path, inputs, tensor_parser=parse))
    assert [feed["i10"].tolist() for feed in feeds] == [[9, 10], [10, 10]]


def test_one_folder_is_one_feed(write, inputs):
    folder = write("test_data_set_3", ("a", f32(1)), ("b", f32(2)))
    assert len(open_dataset(folder, inputs, tensor_parser=parse)) == 1


def test_missing_and_surplus_tensors_are_errors(tmp_path, write, inputs):
    write("test_data_set_0", ("", f32(1)))
    with pytest.raises(DataError, match="test_data_set_0: no array for input 'b'; the data has: a"):
        list(open_dataset(tmp_path, inputs, tensor_parser=parse))
    write("test_data_set_00", *[("", f32(i)) for i in range(3)])
    with pytest.raises(DataError, match="has 3 inputs, and the model wants 2: a, b; remove"):
        list(open_dataset(tmp_path / "test_data_set_00", inputs, tensor_parser=parse))


def test_a_damaged_tensor_is_named(write, inputs):
    folder = write("test_data_set_0", ("a", f32(1)))
    (folder / "input_1.pb").write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"input_1\.pb: cannot be read \(no tensor\); dow"):
        list(open_dataset(folder, inputs, tensor_parser=parse))


def test_without_a_parser_it_is_refused(write, inputs):
    folder = write("test_data_set_0", ("a", f32(1)))
    with pytest.raises(ConfigError, match="need a parser; pass tensor_parser to open_dataset"):
        open_dataset(folder, inputs)
