import numpy as np
import pytest

from ptq.data import open_dataset, read_labels, select_labels
from ptq.errors import DataError


def saved(path, content):
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", np.array([3, 1, 4], np.uint8)),
        ("a.npz", {"labels": np.array([3, 1, 4])}),
        ("a.npz", {"y": np.array([3, 1, 4]), "x": np.zeros((3, 2))}),
        ("a.json", b"[3, 1, 4]"),
        ("a.csv", b"3\n1\n4\n"),
        ("a.csv", b"\xef\xbb\xbflabel\r\n3\r\n1\r\n4"),
        ("a.txt", b"3\n 1 \n4\n\n"),
    ],
)
def test_every_form_gives_the_same_labels(tmp_path, name, content):
    labels = read_labels(saved(tmp_path / name, content))
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.zeros(3), r"labels are float64 of shape \(3,\); give integers of shape"),
        ("a.npy", np.zeros((3, 1), int), r"labels are int64 of shape \(3, 1\); give integers"),
        ("a.npy", np.zeros(3, bool), "labels are bool"),
        ("a.npy", np.array([None]), "holds Python objects"),
        ("a.npy", np.zeros(0, int), "holds no labels; give one integer for each sample"),
        ("a.npz", {"x": np.zeros(3)}, "has x; name the labels 'labels', 'label' or 'y'"),
        ("a.json", b"{}", "not a JSON list of integers .*; give"),
        ("a.json", b"[1, 2.5]", "not a JSON list of integers"),
        ("a.json", b"[1,", "not a JSON list of integers"),
        ("a.csv", b"1\ncat\n", r"a\.csv line 2: 'cat' is not an integer; give one integer on"),
        ("a.csv", b"file,label\na.png,1\n", "line 1: 'file,label' is not an integer"),
        ("a.txt", b"1\n\n2\n", "line 2: '' is not an integer"),
        ("a.txt", b"3.0", "'3.0' is not an integer"),
        ("a.txt", b"\xff\xfe1", "not a text file"),
        ("a.txt", b"9999999999999999999", "a label does not fit 64 bits"),
        ("a.txt", b"", "holds no labels"),
        ("a.xlsx", b"", "cannot read labels from .*; give one of: .npy, .npz, .json, .csv, .txt"),
    ],
)
def test_anything_else_is_an_error(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_labels(saved(tmp_path / name, content))


TEXTS = ("one", "two, three", "", "4")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"one\ntwo, three\n\n4\n"),
        ("a.txt", b"\xef\xbb\xbfone\r\ntwo, three\r\n\r\n4"),
        ("a.csv", b'one\n"two, three"\n\n4\n'),
        ("a.csv", b'label\r\none\r\n"two, three"\r\n""\r\n4\r\n'),
        ("a.json", b'["one", "two, three", "", "4"]'),
        ("a.npy", np.array(TEXTS)),
        ("a.npz", {"labels": np.array(TEXTS)}),
    ],
)
@pytest.mark.parametrize("kind", ["texts", "any"])
def test_every_form_gives_the_same_texts(tmp_path, name, content, kind):
    assert read_labels(saved(tmp_path / name, content), kind) == TEXTS


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"12\n34\n"), ("a.csv", b"label\n12\n34\n")],
)
def test_texts_that_are_numbers_are_texts_if_asked_for(tmp_path, name, content):
    path = saved(tmp_path / name, content)
    assert read_labels(path, "texts") == ("12", "34")
    assert read_labels(path, "any").tolist() == [12, 34]


def test_characters_that_python_takes_for_ends_of_lines_are_text(tmp_path):
    path = saved(tmp_path / "a.txt", "a\u2028b\nc\x0cd\n".encode())
    assert read_labels(path, "texts") == ("a\u2028b", "c\x0cd")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a.png,one\n", r"row 1: has 2 columns; give one text on each line, in quotes"),
        ("a.json", b"[1, 2]", r"not a JSON list of texts .*; give \[\"one\", \"two\"\]"),
        ("a.npy", np.arange(3), r"labels are int64 of shape \(3,\); give texts of shape"),
        ("a.txt", b"", "holds no labels; give one text for each sample"),
        ("a.txt", b"\xff\xfe1", "not a text file in UTF-8; give one text on each line"),
    ],
)
def test_what_is_no_text_is_an_error(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_labels(saved(tmp_path / name, content), "texts")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.json", "a.csv"])
def test_a_missing_file_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="No such file or directory"):
        read_labels(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.json", "a.csv"])
def test_a_damaged_file_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 broken \xff")
    with pytest.raises(DataError):
        read_labels(tmp_path / name)


@pytest.fixture
def opened(tmp_path, spec):
    def make(batch, **options):
        np.savez(tmp_path / "x.npz", x=np.arange(10, dtype="f4"))
        return open_dataset(tmp_path / "x.npz", [spec(shape=(batch,))], **options)

    return make


@pytest.mark.parametrize("batch", ["N", 1, 2, 3])
@pytest.mark.parametrize("samples", [None, 1, 2, 3])
def test_labels_follow_the_samples_in_use(opened, batch, samples):
    dataset = opened(batch, samples=samples)
    rows = np.concatenate([feed["x"] for feed in dataset])
    np.testing.assert_array_equal(select_labels(np.arange(10), dataset), rows)


def test_texts_follow_the_samples_in_use_too(opened):
    dataset = opened("N", samples=3)
    rows = np.concatenate([feed["x"] for feed in dataset])
    texts = select_labels(tuple(map(str, range(10))), dataset)
    assert texts == tuple(str(int(row)) for row in rows)


def test_labels_that_do_not_match_one_to_one_cannot_be_chosen_from(opened):
    message = r"there are 9 labels, and .*x\.npz has 10 rows; give one label for each"
    with pytest.raises(DataError, match=message):
        select_labels(np.arange(9), opened("N", samples=3))
    assert len(select_labels(np.arange(9), opened("N"))) == 9


def test_labels_of_random_data_stay_as_they_are(spec):
    dataset = open_dataset("random", [spec()], samples=3)
    assert select_labels(np.arange(3), dataset).tolist() == [0, 1, 2]
