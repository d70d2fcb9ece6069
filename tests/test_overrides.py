"""What overrides match in a model, and which of them wins."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import load
from support.nets import TARGET, prepare

from ptq import Override, QuantizeConfig
from ptq.errors import ConfigError
from ptq.overrides import IN_FLOAT, Overrides
from ptq.source import find_configured_sites, not_placed

TEXT = """g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y, float[N, 4, H, W] z)
    <float[4, 4, 1, 1] w1, float[4, 4, 1, 1] w2>
    { t = Conv (x, w1) r = Relu (t) u = Conv (r, w2) y = Transpose <perm = [0, 1, 3, 2]> (u)
      z = Conv (u, w1) }"""
NAMES = {"one": ("Conv", "t", "w1"), "act": ("Relu", "r", ""), "two": ("Conv", "u", "w2"),
         "turn": ("Transpose", "y", ""), "three": ("Conv", "z", "w1")}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    found = prepare(TEXT)
    for node, name in zip(found.graph, NAMES, strict=True):
        node.name = name
    return found


def overrides_of(model, *overrides, **settings):
    return Overrides(model, QuantizeConfig(overrides=overrides, **settings))


def solvers_of(model, *overrides):
    config = QuantizeConfig(overrides=overrides)
    sites = find_configured_sites(model, TARGET, config)
    found = Overrides(model, config).solvers(sites)
    return {tensor: type(solver).__struct_config__.tag for tensor, solver in found.items()}


@pytest.mark.parametrize("glob", ["*", "t*", "o*", "w1", "[tu]", "y"])
@pytest.mark.parametrize("op", ["", "Conv", "Relu"])
def test_a_node_matches_by_its_name_its_output_or_its_constant(model, glob, op):
    wanted = {
        node
        for node, (op_type, *tensors) in NAMES.items()
        if op in ("", op_type) and any(fnmatch.fnmatch(n, glob) for n in (node, *tensors) if n)
    }
    override = Override(match=glob, op=op, float=True)
    if not wanted:
        with pytest.raises(ConfigError, match="matches no node"):
            overrides_of(model, override)
        return
    kept = overrides_of(model, override).kept_float()
    assert kept == dict.fromkeys(sorted(wanted), IN_FLOAT)
    config = QuantizeConfig(overrides=(override,))
    assert not_placed(model, config) == kept
    why = find_configured_sites(model, TARGET, config).why_float
    assert wanted <= set(why)
    # a Relu has no kernel of its own, which is the better reason
    assert {n for n, reason in why.items() if reason == IN_FLOAT} == wanted - {"act"}


def test_a_name_with_brackets_matches_itself():
    model = prepare(TEXT)
    model.graph[0].name = "net[0].conv"
    assert set(overrides_of(model, Override(match="net[0].conv", float=True)).kept_float()) == {
        "net[0].conv"
    }


@pytest.mark.parametrize("glob", ["nothing", "x"])
def test_an_override_of_nodes_that_matches_none_is_an_error(model, glob):
    # x is a tensor, but no node makes it
    with pytest.raises(ConfigError, match=f"override '{glob}' matches no node; `ptq inspect`"):
        overrides_of(model, Override(match=glob, float=True, calib="mse"))


def test_an_override_of_tensors_that_matches_none_is_an_error(model):
    with pytest.raises(ConfigError, match="override of Sigmoid 'x' matches no tensor"):
        overrides_of(model, Override(match="x", op="Sigmoid", calib="mse"))


def test_the_last_that_matches_wins_field_by_field(model):
    found = overrides_of(
        model,
        Override(op="Conv", weights="per-tensor", weight_method="mse"),
        Override(match="two", weight_method="percentile:coverage=99.9"),
        Override(match="two", float=True),
        Override(match="tw*", float=False),
    )
    one, two, act = (found.weight(name) for name in ("one", "two", "act"))
    assert (one.per_channel, two.per_channel, act.per_channel) == (False, False, True)
    kinds = [type(s.method).__struct_config__.tag for s in (one, two, act)]
    assert kinds == ["mse", "percentile", "minmax"]
    assert found.kept_float() == {}


@given(
    said=st.lists(
        st.tuples(st.sampled_from(["*", "t*", "one", "act"]), st.booleans()), min_size=1, max_size=5
    )
)
def test_only_the_last_word_on_a_node_counts(model, said):
    found = overrides_of(model, *(Override(match=g, float=f) for g, f in said)).kept_float()
    for node, (_, *tensors) in NAMES.items():
        words = [f for g, f in said if any(fnmatch.fnmatch(n, g) for n in (node, *tensors) if n)]
        assert (node in found) == (bool(words) and words[-1])


def test_a_tensor_matches_by_its_name_or_with_what_makes_it(model):
    assert solvers_of(model, Override(match="x", calib="mse")) == {"x": "mse"}
    assert solvers_of(model, Override(match="u", calib="mse")) == {"u": "mse"}
    assert solvers_of(model, Override(match="two", calib="mse")) == {"u": "mse"}
    assert solvers_of(model, Override(op="Transpose", calib="mse")).keys() <= {"y"}


@pytest.mark.parametrize("match", ["one", "t", "act", "r"])
def test_what_an_absorbed_relu_puts_out_matches_with_the_convolution_too(model, match):
    assert solvers_of(model, Override(match=match, calib="mse")) == {"r": "mse"}


def test_of_a_convolution_and_its_relu_the_last_override_wins(model):
    first, second = Override(match="act", calib="mse"), Override(match="one", calib="minmax")
    assert solvers_of(model, first, second) == {"r": "minmax"}
    assert solvers_of(model, second, first) == {"r": "mse"}


def test_two_nodes_cannot_want_one_weight_differently(model):
    with pytest.raises(ConfigError, match="weight 'w1' is read by 'one' and 'three'"):
        overrides_of(model, Override(match="one", weights="per-tensor"))
    # both the same, or one of them in float, is fine
    overrides_of(model, Override(match="w1", weights="per-tensor"))
    both = Override(match="one", weights="per-tensor"), Override(match="three", float=True)
    assert not overrides_of(model, *both).weight("one").per_channel


def test_a_weight_that_is_moved_before_it_is_read_is_shared_all_the_same():
    text = """g (float[N, 64] x) => (float[N, 64] y, float[N, 64] z) <float[64, 64] w>
        { y = MatMul (x, w) v = Transpose (w) z = MatMul (x, v) }"""
    model = load(text)  # not prepared: that would fold the Transpose
    for i, node in enumerate(model.graph):
        node.name = f"node {i}"
    with pytest.raises(ConfigError, match="weight 'w' is read by 'node 0' and 'node 2'"):
        overrides_of(model, Override(match="node 0", bits=4), scheme="weight-only")


def test_without_overrides_the_settings_are_the_general_ones(model):
    found = overrides_of(model, weights="per-tensor", weight_method="mse")
    assert found.weight("one") == found.weight("two")
    assert not found.weight("one").per_channel
    assert (found.kept_float(), found.widths(), found.effects) == ({}, {}, ())
