import numpy as np
import pytest

from ptq.data import open_dataset
from ptq.data.files import natural_key
from ptq.errors import ConfigError, DataError


def test_numbers_in_names_sort_by_value_and_the_order_is_total():
    names = ["10.npz", "9.npz", "b1.npz", "a02.npz", "a2.npz", "a10.npz", "a.npz", "²"]
    expected = ["9.npz", "10.npz", "a02.npz", "a2.npz", "a10.npz", "a.npz", "b1.npz", "²"]
    # 02 and 2 are one number; the name breaks the tie
    for order in (names, names[::-1]):
        assert sorted(order, key=natural_key) == expected


@pytest.fixture
def text(spec):
    return [spec(name, ("N", "T"), "int64") for name in ("ids", "mask")]


def write_text(directory, lengths):
    for i, length in enumerate(lengths):
        np.savez(
            directory / f"{i}.npz", ids=np.full((1, length), i), mask=np.ones((1, length), int)
        )


def test_variable_length_feeds_of_several_inputs(tmp_path, text):
    write_text(tmp_path, lengths=range(1, 13))
    dataset = open_dataset(tmp_path, text)
    assert [feed["ids"].shape for feed in dataset] == [(1, n) for n in range(1, 13)]
    assert [int(feed["ids"][0, 0]) for feed in dataset] == list(range(12))
    assert len(open_dataset(tmp_path, text, samples=5)) == 5


def test_errors_name_the_file(tmp_path, text):
    write_text(tmp_path, lengths=[3, 4])
    np.savez(tmp_path / "2.npz", ids=np.zeros((1, 3), int))
    np.savez(tmp_path / "labels.npz", labels=np.zeros(3, int))
    dataset = iter(open_dataset(tmp_path, text))
    next(dataset)
    next(dataset)
    with pytest.raises(DataError, match=r"2\.npz: no array for input 'mask'; the data has: ids; "):
        next(dataset)


def test_a_feed_without_its_batch_axis_is_refused_with_the_remedy(tmp_path, spec):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 5), "f4"))
    with pytest.raises(DataError, match=r"a\.npz: input 'x' has shape .* add a leading batch axis"):
        list(open_dataset(tmp_path, [spec()]))


def test_many_samples_in_a_file_of_a_directory_go_in_as_one_batch(tmp_path, spec):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 3, 4, 5), "f4"))
    assert [feed["x"].shape for feed in open_dataset(tmp_path, [spec()])] == [(6, 3, 4, 5)]


def test_the_notice_of_a_positional_array_is_given_once_for_all_files(tmp_path, spec):
    for name in "abc":
        np.savez(tmp_path / f"{name}.npz", np.zeros((1, 2), "f4"))
    dataset = open_dataset(tmp_path, [spec(shape=("N", 2))])
    list(dataset)
    assert dataset.notices == [f"{tmp_path}: array 'arr_0' is taken for the only input, 'x'"]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_damaged_file_is_named(tmp_path, spec, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=rf"bad\{suffix}: .*; save it again"):
        list(open_dataset(tmp_path, [spec()]))


@pytest.mark.parametrize("array", [np.array([{}]), np.array([None, 1])])
def test_python_objects_are_never_unpickled(tmp_path, spec, array):
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(DataError, match="holds Python objects"):
        list(open_dataset(tmp_path, [spec()]))


def test_fortran_order_is_read_right(tmp_path, spec, rng):
    array = rng.random((1, 5, 4, 3), np.float32).transpose(0, 3, 2, 1)
    np.save(tmp_path / "a.npy", array)
    feed = next(iter(open_dataset(tmp_path, [spec()])))
    np.testing.assert_array_equal(feed["x"], array)


def test_npy_files_are_feeds_of_the_only_input(tmp_path, spec):
    for i in (10, 9):
        np.save(tmp_path / f"{i}.npy", np.full((1, i), i, "f4"))
    np.save(tmp_path / "labels.npy", np.arange(2))
    dataset = open_dataset(tmp_path, [spec(shape=("N", "T"))])
    assert [feed["x"].shape for feed in dataset] == [(1, 9), (1, 10)]
    assert dataset.notices == []


def test_npy_files_of_several_inputs_lie_in_directories_of_their_names(tmp_path, text):
    for name, value in (("ids", 5), ("mask", 1)):
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"{i}.npy", np.full((1, i + 1), value + i))
    (tmp_path / "empty").mkdir()
    feeds = list(open_dataset(tmp_path, text))
    assert [(int(f["ids"][0, 0]), int(f["mask"][0, 0])) for f in feeds] == [(5, 1), (6, 2), (7, 3)]


def test_npy_files_that_do_not_say_their_input_are_refused(tmp_path, text):
    np.save(tmp_path / "a.npy", np.zeros((1, 2), int))
    with pytest.raises(DataError, match="the model wants: ids, mask; put them in one subdirectory"):
        open_dataset(tmp_path, text)


def test_npy_directories_must_match_the_inputs_and_each_other(tmp_path, text):
    for name in ("ids", "musk"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.zeros((1, 2), int))
    with pytest.raises(DataError, match="no array for input 'mask'; the data has: ids, musk; the"):
        open_dataset(tmp_path, text)
    (tmp_path / "musk").rename(tmp_path / "mask")
    np.save(tmp_path / "ids" / "b.npy", np.zeros((1, 2), int))
    with pytest.raises(
        DataError, match=r"input 'mask' has no file 'b\.npy', and another input has"
    ):
        open_dataset(tmp_path, text)


def test_two_kinds_of_data_in_one_directory_are_refused(tmp_path, spec):
    np.save(tmp_path / "a.npy", np.zeros(2))
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    message = "could be read as directory of .npy files and directory of .npz files; keep one kind"
    with pytest.raises(ConfigError, match=message):
        open_dataset(tmp_path, [spec()])


def test_hidden_and_unrelated_files_are_ignored(tmp_path, spec):
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2), "f4"))
    (tmp_path / ".b.npz").write_bytes(b"")
    (tmp_path / "README.md").write_text("the data")
    (tmp_path / "c.npz").mkdir()
    assert len(open_dataset(tmp_path, [spec(shape=("N", 2))])) == 1
