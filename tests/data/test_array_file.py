import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.data import InputSpec, open_dataset
from ptq.errors import DataError

SAVE = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.fixture
def opened(tmp_path):
    """Return a function that saves arrays and opens them for some inputs."""

    def make(arrays, inputs, save=np.savez, **options):
        save(tmp_path / "calib.npz", **arrays)
        return open_dataset(tmp_path / "calib.npz", inputs, **options)

    return make


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
@given(
    array=hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "i1"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
        elements=st.integers(-9, 9),
    ),
    batch=st.sampled_from(["N", None, 1, 2, 3]),
    samples=st.integers(1, 9) | st.none(),
    fortran=st.booleans(),
)
def test_samples_are_the_slices_that_numpy_gives(save, array, batch, samples, fortran):
    spec = InputSpec("x", array.dtype.newbyteorder("="), (batch, *array.shape[1:]))
    rows = spec.batch
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.npz"
        save(path, x=np.asfortranarray(array) if fortran else array)
        if len(array) < rows:
            with pytest.raises(DataError, match="fixes its batch"):
                open_dataset(path, [spec])
            return
        dataset = open_dataset(path, [spec], samples=samples)
        whole = np.load(path)["x"]
        assert len(dataset) == min(samples or 99, len(array) // rows)
        for i, feed in zip(dataset.positions, dataset, strict=True):
            np.testing.assert_array_equal(feed["x"], whole[i * rows : (i + 1) * rows])


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_memory_does_not_grow_with_the_number_of_samples(opened, spec, rng, save):
    sample_bytes = 3 * 64 * 64 * 4
    array = rng.random((200, 3, 64, 64), np.float32)
    dataset = opened({"x": array}, [spec(shape=("N", 3, 64, 64))], save)
    del array
    tracemalloc.start()
    try:
        for feed in dataset:
            assert feed["x"].nbytes == sample_bytes
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two samples (the one given out and the next), the chunk of 256 kB and zipfile's copies of
    # it; all 200 samples would be 9.8 MB.
    assert peak_bytes < 2 * sample_bytes + 6 * (1 << 18)


def test_an_array_with_one_axis_more_holds_whole_feeds(opened, spec, rng):
    """Silero's shape: a state whose batch is not leading, and a scalar."""
    inputs = [
        spec("input", (None, None)),
        spec("state", (2, None, 8)),
        spec("sr", (), "int64"),
    ]
    arrays = {"input": rng.random((5, 30)), "state": rng.random((5, 2, 1, 8)), "sr": np.arange(5)}
    dataset = opened(arrays, inputs, samples=3)
    for i, feed in zip((0, 1, 3), dataset, strict=True):
        np.testing.assert_array_equal(feed["input"], arrays["input"][i : i + 1].astype("f4"))
        np.testing.assert_array_equal(feed["state"], arrays["state"][i].astype("f4"))
        assert feed["sr"].shape == ()
        assert feed["sr"] == i


def test_a_zero_dimensional_array_serves_every_sample(opened, spec):
    inputs = [spec("x", ("N", 2)), spec("sr", (), "int64")]
    dataset = opened({"x": np.zeros((3, 2), "f4"), "sr": np.int64(16000)}, inputs)
    assert [int(feed["sr"]) for feed in dataset] == [16000] * 3


def test_zero_dimensional_arrays_alone_are_one_sample(opened, spec):
    dataset = opened({"x": np.float32(2)}, [spec(shape=())])
    assert [float(feed["x"]) for feed in dataset] == [2.0]


def test_an_input_of_unknown_rank_gets_slices(opened, spec):
    dataset = opened({"x": np.zeros((3, 2), "f4")}, [spec(shape=None)])
    assert [feed["x"].shape for feed in dataset] == [(1, 2)] * 3


def test_a_fixed_batch_takes_successive_rows_and_says_what_it_leaves_out(opened, spec):
    dataset = opened({"x": np.arange(11, dtype="f4")}, [spec(shape=(4,))])
    assert [feed["x"].tolist() for feed in dataset] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert dataset.rows == 4
    assert dataset.notices == [
        f"{dataset.source}: the last 3 of 11 rows are left out, as the model fixes its batch at 4"
    ]


def test_arrays_of_unequal_length_are_refused(opened, spec):
    inputs = [spec("a", ("N", 2)), spec("b", ("N", 2))]
    with pytest.raises(DataError, match=r"differ in their number of samples: 'a' 3, 'b' 4; give"):
        opened({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, inputs)


def test_names_that_do_not_match_are_refused_with_both_lists(opened, spec):
    inputs = [spec("a", ("N",)), spec("b", ("N",))]
    message = r"calib\.npz: no array for input 'a', 'b'; the data has: arr_0, arr_1; the model wan"
    with pytest.raises(DataError, match=message):
        opened({"arr_0": np.zeros(3), "arr_1": np.zeros(3)}, inputs)


def test_the_only_array_is_for_the_only_input(opened, spec):
    dataset = opened({"arr_0": np.ones((2, 4), "f4")}, [spec(shape=("N", 4))])
    assert len(list(dataset)) == 2
    assert dataset.notices == [f"{dataset.source}: array 'arr_0' is taken for the only input, 'x'"]


@pytest.mark.parametrize("key", ["labels", "label", "y"])
def test_labels_are_not_an_input(opened, spec, key):
    dataset = opened({"x": np.ones((2, 4), "f4"), key: np.arange(2)}, [spec(shape=("N", 4))])
    assert [list(feed) for feed in dataset] == [["x"]] * 2
    assert dataset.notices == []


def test_labels_are_an_input_if_the_model_has_one(opened, spec):
    inputs = [spec("x", ("N",)), spec("y", ("N",))]
    dataset = opened({"x": np.ones(2, "f4"), "y": np.zeros(2, "f4")}, inputs)
    assert [list(feed) for feed in dataset] == [["x", "y"]] * 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 5), r"calib\.npz: input 'x' has shape \(3, 4, 5\), .*; add a leading batch axis"),
        ((2, 4, 5, 3), r"sample 0: input 'x' has shape \(1, 4, 5, 3\), .* channels-last"),
        ((2, 2, 2, 3, 4, 5), r"calib\.npz: input 'x' has shape"),
        ((0, 3, 4, 5), "holds no samples; give at least one"),
    ],
)
def test_a_wrong_shape_is_told_on_opening(opened, spec, shape, message):
    with pytest.raises(DataError, match=message):
        opened({"x": np.zeros(shape, "f4")}, [spec()])


def test_python_objects_are_never_unpickled(opened, spec):
    array = np.array([{"a": 1}, None], object)
    with pytest.raises(
        DataError, match=r"array 'x': holds Python objects, .* save a plain numeric"
    ):
        opened({"x": array}, [spec(shape=("N",))])


def test_a_structured_array_is_refused(opened, spec):
    array = np.zeros(3, [("a", "f4"), ("b", "f4")])
    with pytest.raises(DataError, match="is a structured array; save each field"):
        opened({"x": array}, [spec(shape=("N",))])


def test_fortran_order_is_read_right_and_noticed(opened, spec, rng):
    array = np.asfortranarray(rng.random((5, 3, 2), np.float32))
    dataset = opened({"x": array}, [spec(shape=("N", 3, 2))], samples=2)
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in dataset]), array[[0, 2]])
    assert "array 'x' is in Fortran order and was loaded whole; save" in dataset.notices[0]


@pytest.mark.parametrize("name", ["serving_default_input_2:0", "a/b", "ü ñ", "x.npy", ".."])
def test_odd_names_of_inputs_are_just_names(opened, spec, name):
    dataset = opened({name: np.ones((2, 3), "f4")}, [spec(name, ("N", 3))])
    assert [list(feed) for feed in dataset] == [[name]] * 2
    assert dataset.notices == []


@pytest.mark.parametrize("name", ["two words.npz", "a:b.npz", "ü[1]*?.NPZ", "-x.npz", "%41.npz"])
def test_odd_names_of_files_are_just_names(tmp_path, spec, name):
    with (tmp_path / name).open("wb") as file:
        np.savez(file, x=np.ones((2, 3), "f4"))
    assert len(list(open_dataset(tmp_path / name, [spec(shape=("N", 3))]))) == 2


def test_a_single_npy_file_is_for_the_only_input(tmp_path, spec):
    np.save(tmp_path / "data.npy", np.arange(6, dtype="f4").reshape(3, 2))
    dataset = open_dataset(tmp_path / "data.npy", [spec(shape=("N", 2))], samples=2)
    assert [feed["x"].tolist() for feed in dataset] == [[[0, 1]], [[2, 3]]]
    assert dataset.notices == []
    with pytest.raises(DataError, match="no array for input 'a', 'b'; the data has: data"):
        open_dataset(tmp_path / "data.npy", [spec("a"), spec("b")])


def write_zip(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_file_that_is_no_archive_is_an_error(tmp_path, spec):
    path = tmp_path / "a.npz"
    path.write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match=r"a\.npz: cannot be read \(File is not a zip file\); save"):
        open_dataset(path, [spec()])


def test_a_member_that_is_no_array_is_an_error(tmp_path, spec):
    write_zip(tmp_path / "a.npz", {"x.npy": b"hello, world"})
    with pytest.raises(DataError, match=r"a\.npz: array 'x': not an array that numpy\.save wrote"):
        open_dataset(tmp_path / "a.npz", [spec()])
    header = b"{'descr': '<f4', (".ljust(118)
    write_zip(tmp_path / "c.npz", {"x.npy": b"\x93NUMPY\1\0" + bytes([118, 0]) + header})
    with pytest.raises(DataError, match="array 'x': not an array"):
        open_dataset(tmp_path / "c.npz", [spec()])
    write_zip(tmp_path / "b.npz", {"readme.txt": b"hello"})
    with pytest.raises(DataError, match=r"array 'readme\.txt': not an array"):
        open_dataset(tmp_path / "b.npz", [spec()])


def test_an_array_cut_short_is_an_error(tmp_path, spec):
    np.save(tmp_path / "x.npy", np.zeros((4, 2), "f4"))
    content = (tmp_path / "x.npy").read_bytes()[:-1]
    write_zip(tmp_path / "a.npz", {"x.npy": content})
    (tmp_path / "x.npy").write_bytes(content)
    for path in (tmp_path / "a.npz", tmp_path / "x.npy"):
        with pytest.raises(DataError, match="cut short or damaged; save it again"):
            open_dataset(path, [spec(shape=("N", 2))])


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_a_flipped_bit_is_an_error(tmp_path, spec, rng, save):
    path = tmp_path / "a.npz"
    save(path, x=rng.random((4, 500), np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    dataset = open_dataset(path, [spec(shape=("N", 500))])
    with pytest.raises(DataError, match=r"a\.npz sample \d: cannot be read"):
        list(dataset)


def test_a_name_that_cannot_be_decoded_is_an_error(tmp_path, spec):
    path = tmp_path / "a.npz"
    write_zip(path, {"ü.npy": b""})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match=r"a\.npz: cannot be read .*; save it again"):
        open_dataset(path, [spec()])


def test_an_encrypted_archive_is_an_error(tmp_path, spec):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((2, 2), "f4"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="array 'x': is encrypted; save it without a password"):
        open_dataset(path, [spec(shape=("N", 2))])
