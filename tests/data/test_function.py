import sys
import textwrap

import pytest

from ptq.data import open_dataset
from ptq.errors import ConfigError, DataError

MODULE = """
    import numpy as np
    import feeds_helper

    calls = []

    def three():
        calls.append("three")
        for i in range(3):
            calls.append(i)
            yield {"x": np.full((1, 2), i, np.float32)}

    def sized():
        return [{"x": np.zeros((1, 2))}] * 5

    class Source:
        @staticmethod
        def feeds():
            return sized()

    def lists(): return [{"x": [[1.0, 2.0]]}]
    def endless():
        while True:
            yield {"x": np.zeros((1, 2), np.float32)}
    def empty(): return iter([])
    def fails(): raise KeyError("no disk")
    def fails_late():
        yield {"x": np.zeros((1, 2), np.float32)}
        raise RuntimeError("first line\\nsecond line")
    def single(): return {"x": np.zeros((1, 2))}
    def nothing(): pass
    def tuples(): return [(np.zeros((1, 2)),)]
    def wrong(): return [{"x": np.zeros((1, 3))}]
    def ragged(): return [{"x": [[1], [1, 2]]}]
    def objects(): return [{"x": object()}]
    def needs(path): return []
    number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "feeds_for_test.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "feeds_helper.py").write_text("")
    (tmp_path / "feeds_broken.py").write_text("import no_such_module_at_all")
    (tmp_path / "feeds_raising.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = sys.path.copy()
    yield
    assert sys.path == before
    for name in [name for name in sys.modules if name.startswith("feeds_")]:
        del sys.modules[name]


@pytest.fixture
def opened(spec):
    def make(function, **options):
        return open_dataset(f"feeds_for_test:{function}", [spec(shape=("N", 2))], **options)

    return make


def calls():
    return sys.modules["feeds_for_test"].calls


def test_the_function_is_called_for_every_pass(opened):
    dataset = opened("three")
    for _ in range(2):
        assert [feed["x"][0, 0] for feed in dataset] == [0, 1, 2]
    assert calls() == ["three", 0, 1, 2] * 2
    assert dataset.expected == len(dataset) == 3
    assert calls() == ["three", 0, 1, 2] * 2


def test_counting_before_a_pass_is_a_pass_of_its_own_and_truth_needs_none(opened):
    dataset = opened("three")
    assert dataset
    assert dataset.expected is None
    assert calls() == []
    assert len(dataset) == dataset.expected == 3
    assert calls() == ["three", 0, 1, 2]


def test_samples_takes_the_first_and_asks_for_no_more(opened):
    dataset = opened("three", samples=2)
    assert [feed["x"][0, 0] for feed in dataset] == [0, 1]
    assert calls() == ["three", 0, 1]
    assert opened("three", samples=2).expected == 2
    assert len(list(opened("endless", samples=4))) == 4


def test_too_few_samples_is_a_notice(opened):
    dataset = opened("three", samples=4)
    list(dataset)
    assert dataset.notices == ["feeds_for_test:three: gives 3 samples, fewer than the 4 asked for"]


@pytest.mark.parametrize(
    ("function", "samples", "length"),
    [("three", None, 3), ("three", 2, 2), ("sized", None, 5), ("sized", 2, 2), ("sized", 9, 5)],
)
def test_length(opened, function, samples, length):
    assert len(opened(function, samples=samples)) == length


def test_a_function_may_be_an_attribute_and_give_plain_lists(opened):
    assert len(opened("Source.feeds")) == 5
    dataset = opened("lists")
    assert next(iter(dataset))["x"].tolist() == [[1.0, 2.0]]
    assert dataset.notices == ["feeds_for_test:lists: input 'x' is cast from float64 to float32"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("empty", "feeds_for_test:empty: gives no samples; give at least one"),
        ("fails", "function 'feeds_for_test:fails' raised KeyError: 'no disk' when called"),
        ("fails_late", "'feeds_for_test:fails_late' raised RuntimeError: first line at feed 1"),
        ("needs", r"'feeds_for_test:needs' raised TypeError: .*'path' when called"),
        ("single", "returned a dict; let it yield one dict of arrays for each sample"),
        ("nothing", "returned a NoneType; let it yield"),
        ("tuples", "feed 0 is a tuple; yield a dict from input names to arrays"),
        ("wrong", r"feeds_for_test:wrong' feed 0: input 'x' has shape \(1, 3\), the model wants"),
        ("ragged", "feed 0: input 'x' is a list, not an array .*; yield arrays"),
        ("objects", "feed 0: input 'x' is a object, not an array of numbers; yield arrays"),
    ],
)
def test_what_goes_wrong_in_a_function_names_it(opened, function, message):
    with pytest.raises(DataError, match=message) as caught:
        list(opened(function))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("feeds_for_test:thre", "module 'feeds_for_test' has no 'thre'; did you mean 'three'"),
        ("feeds_for_test:zzzzzz", "has no 'zzzzzz'; check the name"),
        ("feeds_for_test:number", "'feeds_for_test:number' is a int; name a function"),
        ("no_such_module_:f", "there is no module 'no_such_module_'; run ptq where"),
        ("feeds_for_test.py:three", "write 'feeds_for_test:three'"),
        ("feeds_broken:f", "importing it raised ModuleNotFoundError: No module named 'no_such"),
        ("feeds_raising:f", "importing it raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_cannot_be_found_is_a_configuration_error(spec, source, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset(source, [spec()])


def test_a_path_with_a_colon_is_a_path(tmp_path, spec):
    import numpy as np

    (tmp_path / "a:b").mkdir()
    np.savez(tmp_path / "a:b" / "0.npz", x=np.zeros((1, 2), "f4"))
    assert open_dataset("a:b", [spec(shape=("N", 2))]).kind == "directory of .npz files"
