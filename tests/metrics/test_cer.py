"""Character error rate: edit distance by recursion, decoding by hand."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import ConfigError, DataError
from ptq.metrics import parse_metric
from ptq.metrics.cer import best_path, edit_distance

TEXT = st.text("abc", max_size=7)


@given(a=TEXT, b=TEXT)
def test_edit_distance_is_the_least_number_of_edits(a, b):
    @cache
    def least(i, j):
        if not i or not j:
            return i + j
        replaced = least(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(replaced, least(i - 1, j) + 1, least(i, j - 1) + 1)

    assert edit_distance(a, b) == least(len(a), len(b))


def test_edit_distance_of_the_textbook():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("intention", "execution") == 5


def scored(*lines, classes=5):
    """Scores whose best classes are these; one text a line, all of one length."""
    return np.eye(classes, dtype=np.float32)[np.array(lines)]


def test_repeats_collapse_and_blanks_separate():
    lines = best_path(scored([1, 1, 0, 1, 2, 2, 0], [0, 0, 0, 3, 0, 3, 3]), 0)
    assert [line.tolist() for line in lines] == [[1, 1, 2], [3, 3]]
    assert [line.tolist() for line in best_path(scored([1, 1, 0, 1, 2]), 1)] == [[0, 2]]


@pytest.fixture
def alphabet(tmp_path):
    def write(text):
        path = tmp_path / "chars.txt"
        path.write_bytes(text.encode())
        return path

    return write


def rate(text, got, reference, labels=None):
    metric = parse_metric(text)
    sums = metric.measure({"y": got}, {"y": reference}, labels)
    return sums.tolist(), float(metric.figure(sums.sum(axis=0)))


def test_without_labels_the_float_models_text_is_right():
    reference, got = scored([1, 2, 3, 0], [4, 4, 0, 4]), scored([1, 2, 0, 0], [4, 4, 4, 3])
    fields, figure = rate("cer", got, reference)
    assert fields == [[1, 3], [1, 2]]
    assert figure == pytest.approx(2 / 5)


def test_with_labels_the_texts_are_right(alphabet):
    path = alphabet("a\nb\nc\nd\n")
    fields, figure = rate(
        f"cer:alphabet={path}",
        scored([1, 2, 2, 0], [4, 0, 4, 4]),
        scored([0] * 4, [0] * 4),
        ("abc", "dd"),
    )
    assert fields == [[1, 3], [0, 2]]
    assert figure == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("a\nb\nc\nd\n", ""),
        ("a\r\nb\r\nc\r\nd", ""),
        ("\ufeffa\nb\nc\nd\n", ""),
        ("<blank>\na\nb\nc\nd\n", ""),
        ("a\nb\nc\n", ",space=true"),
        ("-\na\nb\nc\n", ",space=true"),
    ],
)
def test_an_alphabet_has_the_blank_or_not_and_ends_in_a_space_or_not(alphabet, content, options):
    last = " " if options else "d"
    got = scored([1, 0, 2, 4])
    text = f"cer:alphabet={alphabet(content)}{options}"
    assert rate(text, got, got, (f"ab{last}",)) == ([[0, 3]], 0)


def test_the_blank_may_be_the_last_class(alphabet):
    got = scored([0, 4, 0, 3])
    path = alphabet("a\nb\nc\nd\n")
    assert rate(f"cer:alphabet={path},blank=4", got, got, ("aad",)) == ([[0, 3]], 0)


def test_characters_that_python_takes_for_ends_of_lines_are_characters(alphabet):
    got = scored([1, 2, 3, 4])
    path = alphabet("\u2028\n\x85\n\x1c\nd\n")
    assert rate(f"cer:alphabet={path}", got, got, ("\u2028\x85\x1cd",)) == ([[0, 4]], 0)


def test_spaces_can_be_left_out(alphabet):
    got = scored([1, 4, 2, 0])
    text = f"cer:alphabet={alphabet(chr(10).join('abc'))},space=true"
    assert rate(text, got, got, ("a  b",))[0] == [[1, 4]]
    assert rate(f"{text},ignore_space=true", got, got, ("a  b",))[0] == [[0, 2]]


def test_time_can_be_the_first_axis():
    got = scored([1, 2, 3, 0], [4, 4, 0, 4])
    turned = rate("cer:time_first=true", got.swapaxes(0, 1), got.swapaxes(0, 1))
    assert turned == rate("cer", got, got)


def test_what_is_no_alphabet_is_an_error(alphabet, tmp_path):
    got = scored([1, 2, 3, 0])
    with pytest.raises(ConfigError, match=r"has 2 characters, the model 5 classes.*space=true"):
        rate(f"cer:alphabet={alphabet(chr(10).join('ab'))}", got, got, ("a",))
    with pytest.raises(ConfigError, match="2 characters and a space, the model 5 classes"):
        rate(f"cer:alphabet={tmp_path / 'chars.txt'},space=true", got, got, ("a",))
    with pytest.raises(ConfigError, match=r"cannot read the alphabet .*: No such file"):
        rate(f"cer:alphabet={tmp_path / 'no.txt'}", got, got, ("a",))
    with pytest.raises(ConfigError, match=r"needs the characters.*give cer:alphabet=FILE"):
        parse_metric("cer").answers({"y": got})


@pytest.mark.parametrize("shape", [(1, 10), (1, 2, 3, 4)])
def test_scores_that_are_no_text_are_an_error(shape):
    got = np.ones(shape, np.float32)
    with pytest.raises(DataError, match=r"the scores have shape .*; text is read from \(N, T, "):
        rate("cer", got, got)
    with pytest.raises(DataError, match="of which 4 is the blank"):
        rate("cer:blank=4", np.ones((1, 3, 4)), np.ones((1, 3, 4)))
    with pytest.raises(ConfigError, match="several outputs could hold text"):
        parse_metric("cer").measure({"y": got, "z": got}, {"y": got, "z": got}, None)
