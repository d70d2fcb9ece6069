import numpy as np
import pytest

from ptq.data import open_dataset
from ptq.errors import ConfigError


def test_values_are_normal_or_0_and_1_and_marked_as_made_up(spec):
    inputs = [
        spec("x", ("N", 50, 50)),
        spec("half", (100,), "float16"),
        spec("ids", (None, 400), "int64"),
        spec("flag", (-1, 400), "bool"),
        spec("scalar", ()),
    ]
    dataset = open_dataset("random", inputs, samples=2)
    assert dataset.synthetic
    feed = next(iter(dataset))
    assert [array.shape for array in feed.values()] == [(1, 50, 50), (100,), (1, 400), (1, 400), ()]
    # 2500 draws: the mean is off by 5 of its standard errors (1/50) in less than 1 in 10^6 seeds
    assert abs(feed["x"].mean()) < 5 / 50
    assert abs(feed["x"].std() - 1) < 5 / 50
    assert feed["half"].dtype == np.float16
    assert set(feed["ids"].ravel()) == {0, 1}
    assert set(feed["flag"].ravel()) == {False, True}


def test_the_seed_decides_and_nothing_else(spec):
    inputs = [spec()]
    digest = open_dataset("random", inputs, samples=3).digest()
    assert open_dataset("random", inputs, samples=3, seed=0).digest() == digest
    assert open_dataset("random", inputs, samples=3, seed=1).digest() != digest
    few, many = open_dataset("random", inputs, samples=2), open_dataset("random", inputs, samples=5)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a["x"], b["x"])


def test_there_are_some_samples_unless_told_otherwise(spec):
    assert len(open_dataset("random", [spec()])) == 32
    assert len(open_dataset("random", [spec()], samples=100)) == 100


@pytest.mark.parametrize(
    ("source", "shapes"),
    [
        ("random:T=7", [(1, 7), (2, 1, 7)]),
        ("random:T=7,N=4", [(4, 7), (2, 4, 7)]),
        ("random:ids.1=6,T=7", [(1, 6), (2, 1, 7)]),
        ("random:ids.0=3,T=7", [(3, 7), (2, 1, 7)]),
    ],
)
def test_dynamic_dimensions_are_given_by_symbol_or_axis(spec, source, shapes):
    inputs = [spec("ids", ("N", "T")), spec("state", (2, "N", "T"))]
    feed = next(iter(open_dataset(source, inputs)))
    assert [array.shape for array in feed.values()] == shapes


@pytest.mark.parametrize(
    ("source", "shape", "message"),
    [
        ("random", ("N", "T"), r"'x' wants \(N, T\), and its axis 1 .* give it with random:T=64"),
        ("random", ("N", None), r"axis 1 has no fixed size; give it with random:x\.1=64"),
        ("random", ("?", 3, "?"), r"axis 2 has no fixed size; give it with random:x\.2=64"),
        ("random:S=1", ("N", "T"), "give it with random:T=64"),
        (
            "random:T=1,seq=2",
            ("N", "T"),
            "no input has a dynamic dimension 'seq'; choose from: N, T",
        ),
        ("random:width=2", ("N", "Width"), "axis 1"),
        ("random:T=1,TT=2", ("N", "T"), "dimension 'TT'; did you mean 'T'"),
        ("random:N=2", (3,), "choose from: none"),
        ("random:T", ("N", "T"), "'T' is not NAME=SIZE; write random:T=64,H=224"),
        ("random:T=0", ("N", "T"), "'T=0' is not NAME=SIZE"),
        ("random:=3", ("N", "T"), "'=3' is not NAME=SIZE"),
        ("random", None, "input 'x' does not say its rank; supply real data"),
    ],
)
def test_what_is_open_or_wrong_is_an_error_with_the_remedy(spec, source, shape, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset(source, [spec(shape=shape)])


def test_strings_are_not_made_up(spec):
    with pytest.raises(ConfigError, match="no random data for input 'x' of type object; supply"):
        open_dataset("random", [spec(shape=("N",), dtype=object)])


def test_made_up_data_never_takes_the_place_of_a_path_with_data(tmp_path, monkeypatch, spec):
    (tmp_path / "random").mkdir()
    np.savez(tmp_path / "random" / "0.npz", x=np.zeros((1, 2), "f4"))
    monkeypatch.chdir(tmp_path)
    inputs = [spec(shape=("N", 2))]
    assert not open_dataset("./random", inputs).synthetic
    message = r"'random' could be read as directory of \.npz files and random; write '\./random'"
    with pytest.raises(ConfigError, match=message):
        open_dataset("random", inputs)
