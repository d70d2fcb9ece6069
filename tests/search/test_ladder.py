"""The ladder of `ptq tune`: each rung gives settings that `ptq quantize` takes."""

import fnmatch

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from ptq.config import Override, QuantizeConfig
from ptq.search.ladder import FIRST, LADDER, UNCHANGED, escaped

FULL = QuantizeConfig(
    calib="mse",
    weight_method="mse",
    bias_correct=True,
    rounding="gptq",
    smooth=True,
    equalize=True,
    overrides=(Override(match="stem", float=True), Override(match="x", calib="minmax")),
)


@pytest.mark.parametrize("start", [QuantizeConfig(), FULL], ids=["defaults", "everything"])
@pytest.mark.parametrize("rung", LADDER, ids=lambda r: r.name)
def test_every_rung_gives_valid_settings_of_its_scheme(rung, start):
    worst = tuple(f"layer{i}" for i in range(rung.float_layers))
    found = rung.settings(start, worst)
    if found is None:
        assert not rung.alone
        return
    found.require_known()
    assert found.scheme == rung.scheme
    assert {name: getattr(found, name) for name in rung.changes} == dict(rung.changes)


def test_it_begins_with_what_the_user_gave_and_names_are_distinct():
    assert LADDER[0] is FIRST
    assert FIRST.settings(FULL) == FULL
    names = [rung.name for rung in (*LADDER, UNCHANGED)]
    assert len(set(names)) == len(names)


def test_what_is_in_the_settings_already_is_nothing_to_try():
    [rung] = [r for r in LADDER if r.name == "bias correction"]
    assert rung.settings(FULL) is None
    assert rung.settings(msgspec.structs.replace(FULL, bias_correct=False)) == FULL


def test_layers_in_float_come_on_top_of_those_that_are_and_none_comes_twice():
    one, two = (r for r in LADDER if r.float_layers in (1, 2))
    first = one.settings(QuantizeConfig(), ("a",))
    second = two.settings(first, ("a", "b[0]"))
    assert [o.match for o in second.overrides] == ["a", "b[[]0]"]
    assert all(o.float for o in second.overrides)


@given(st.text(alphabet="ab*?[]!-/.", max_size=6), st.text(alphabet="ab*?[]!-/.", max_size=6))
def test_an_escaped_name_matches_itself_and_nothing_else(name, other):
    assert fnmatch.fnmatchcase(other, escaped(name)) == (other == name)
