"""The settings of a quantization are validated when they are made."""

import json

import msgspec
import pytest

from ptq import Override, QuantizeConfig
from ptq.errors import ConfigError
from ptq.weights import parse_method


def test_the_defaults_are_the_fast_ones():
    config = QuantizeConfig()
    assert (config.bits, config.calib, config.weights) == (8, "kl", "per-channel")
    assert config.weights_symmetric
    assert not config.symmetric
    config.require_known()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bits", "8"),
        ("bits", 8.5),
        ("weights", "per-chanel"),
        ("qcode_objective", "best"),
        ("exclude", "stem.*"),
        ("op_types", "Conv"),
        ("exclude", [1]),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("sample_size", -1),
        ("seed", -1),
        ("symmetric", "yes"),
        ("calib", None),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        QuantizeConfig(**{field: value})


@pytest.mark.parametrize("bits", [0, 9, 16])
def test_other_bit_widths_are_refused_with_a_remedy(bits):
    with pytest.raises(ConfigError, match=f"--bits {bits} is not supported by --scheme static"):
        QuantizeConfig(bits=bits)


@pytest.mark.parametrize(
    "settings",
    [{"calib": "klx"}, {"weight_method": "x"}, {"target": "x"}, {"calib": "kl:bins=x"}],
    ids=str,
)
def test_names_that_are_none_are_refused(settings):
    with pytest.raises(ConfigError, match=r"unknown|bins"):
        QuantizeConfig(**settings).require_known()


def test_an_objective_needs_its_method():
    for method in ("qcode", "qcode:objective=kl"):
        assert QuantizeConfig(calib=method, qcode_objective="output").searches_output
    with pytest.raises(ConfigError, match="needs --calib qcode, not mse"):
        QuantizeConfig(calib="mse", qcode_objective="output")


def test_power_of_two_activations_bring_power_of_two_weights():
    assert type(QuantizeConfig(calib="qcode").weight_quantizer()).__name__.startswith("QCode")
    config = QuantizeConfig(calib="qcode", weight_method="mse")
    assert type(config.weight_quantizer()).__name__.lower().startswith("mse")


def test_a_method_without_the_width_is_for_layers_that_have_another():
    with pytest.raises(ConfigError, match="'kmeans' has 1 to 7 bits, not 8"):
        QuantizeConfig(weight_method="kmeans").require_known()
    few = QuantizeConfig(weight_method="kmeans", overrides=(Override(match="a", bits=4),))
    few.require_known()
    QuantizeConfig(weight_method="kmeans").require_known(widths=(4,))
    assert type(few.weight_quantizer(8)) is type(parse_method("minmax"))
    assert type(few.weight_quantizer(4)) is type(parse_method("kmeans"))


def test_the_objective_reaches_the_solver():
    assert QuantizeConfig(calib="qcode", qcode_objective="kl").solver().objective == "kl"
    assert QuantizeConfig(calib="qcode", qcode_objective="output").solver().objective == "mse"


def test_a_config_survives_json():
    config = QuantizeConfig(calib="mse", exclude=("a*",), op_types=("Conv",), seed=3)
    assert msgspec.json.decode(msgspec.json.encode(config), type=QuantizeConfig) == config


def test_unknown_fields_are_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `bitz`"):
        msgspec.json.decode(b'{"bitz": 8}', type=QuantizeConfig)


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        QuantizeConfig().bits = 4


def test_few_bits_are_for_weights_alone():
    assert QuantizeConfig(scheme="weight-only", bits=2).bits == 2
    with pytest.raises(ConfigError, match="use 8 or 6 or 5 or 4 or 3 or 2"):
        QuantizeConfig(scheme="weight-only", bits=7)


@pytest.mark.parametrize("place", [(), ("auto", "conv*"), ("all", "auto")])
def test_a_placement_is_one_thing_only(place):
    with pytest.raises(ConfigError, match="--place takes auto, all, or globs"):
        QuantizeConfig(place=place)


@pytest.mark.parametrize("settings", [{"format": "integer"}, {"scheme": "dynamic"}])
def test_what_is_of_onnxruntime_is_refused_for_other_runtimes(settings):
    [(option, value)] = settings.items()
    with pytest.raises(ConfigError, match=f"--{option} {value} is of onnxruntime, and target"):
        QuantizeConfig(target="tensorrt", **settings).require_known()


# -- overrides -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", "4"), ("float", 1), ("calib", 3), ("weights", "per-chanel"), ("match", None)],
)
def test_a_value_of_the_wrong_kind_in_an_override_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        Override(**{"calib": "mse", field: value})


def test_an_override_that_changes_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"of MatMul '/head/\*' changes nothing; give one of: fl"):
        Override(match="/head/*", op="MatMul")


@pytest.mark.parametrize(
    ("scheme", "bits"), [("static", 16), ("dynamic", 2), ("weight-only", 7), ("auto", 4)]
)
def test_an_override_cannot_have_bits_that_the_scheme_lacks(scheme, bits):
    overrides = (Override(match="a*", bits=bits),)
    with pytest.raises(ConfigError, match=rf"override 'a\*': bits = {bits} is not supported"):
        QuantizeConfig(scheme=scheme, overrides=overrides)


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_bits_that_the_scheme_has_anyway_are_no_error(scheme):
    assert QuantizeConfig(scheme=scheme, overrides=(Override(bits=8),)).overrides


@pytest.mark.parametrize(
    ("scheme", "field", "value"),
    [
        ("dynamic", "calib", "mse"),
        ("weight-only", "calib", "mse"),
        ("weight-only", "weights", "per-tensor"),
        ("weight-only", "weight_method", "mse"),
    ],
)
def test_an_override_that_means_nothing_to_the_scheme_is_refused(scheme, field, value):
    override = Override(**{field: value})
    name = field.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{name} means nothing to --scheme {scheme}"):
        QuantizeConfig(scheme=scheme, overrides=(override,))
    # every scheme that is tried gets of it what it can do
    tried = QuantizeConfig(scheme="auto", overrides=(override, Override(float=True)))
    assert tried.with_scheme(scheme).overrides == (Override(float=True),)
    assert tried.with_scheme("static").overrides == tried.overrides


@pytest.mark.parametrize("override", [{"calib": "klx"}, {"weight_method": "msee"}], ids=str)
def test_an_unknown_method_in_an_override_is_refused_with_its_name(override):
    config = QuantizeConfig(overrides=(Override(op="Conv", **override),))
    with pytest.raises(ConfigError, match=r"^override of Conv '\*': unknown .* did you mean"):
        config.require_known()


def test_overrides_survive_json_and_leave_out_what_they_do_not_say():
    config = QuantizeConfig(overrides=(Override(match="/a[0]*", float=False), Override(bits=8)))
    text = msgspec.json.encode(config)
    assert msgspec.json.decode(text, type=QuantizeConfig) == config
    assert json.loads(text)["overrides"] == [{"match": "/a[0]*", "float": False}, {"bits": 8}]


def test_few_bits_of_activations_are_static_and_of_onnxruntime():
    assert QuantizeConfig(activation_bits=4).protected_db == 0
    assert QuantizeConfig(activation_bits=4, protect=15.0).protected_db == 15
    assert QuantizeConfig().protected_db > 0
    for scheme in ("dynamic", "weight-only", "auto"):
        with pytest.raises(ConfigError, match=f"are of --scheme static, not {scheme}"):
            QuantizeConfig(activation_bits=4, scheme=scheme)
    with pytest.raises(ConfigError, match="--bits W8A4 is of onnxruntime, and target 'qnn' is not"):
        QuantizeConfig(activation_bits=4, target="qnn").require_known()
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="activation_bits"):
            QuantizeConfig(activation_bits=bits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_method": "hqqq"}, "unknown block quantizer 'hqqq'; did you mean 'hqq'"),
        ({"weight_method": "bwn"}, "--weight-method bwn is of --scheme static, not weight-only"),
        ({"weight_method": "nf4", "bits": 8}, "block quantizer 'nf4' has 4 bits, not 8"),
        ({"weight_method": "mxint8:p=2", "bits": 8}, "unknown option"),
        ({"weight_method": "hqq", "weights_symmetric": False}, "hqq has offsets of its own"),
        ({"weight_method": "nf4", "weights_symmetric": False}, "nf4 has no zero points"),
        ({"weight_method": "fp8", "bits": 8, "rounding": "gptq"}, "fp8 stores floats"),
        ({"weight_method": "kquant", "rounding": "adaround"}, "use --rounding gptq"),
    ],
)
def test_what_a_block_quantizer_cannot_do_is_refused(settings, message):
    config = QuantizeConfig(scheme="weight-only", **{"bits": 4, **settings})
    with pytest.raises(ConfigError, match=message):
        config.require_known()


def test_the_methods_of_weights_are_those_of_the_scheme():
    config = QuantizeConfig(scheme="weight-only", weight_method="hqq", bits=4)
    config.require_known()
    assert config.block_quantizer().name == "hqq"
    assert config.block_quantizer(8).name == "hqq"
    assert QuantizeConfig(scheme="weight-only").block_quantizer().name == "mse"
    with pytest.raises(ConfigError, match="--weight-method hqq is of --scheme weight-only, not"):
        QuantizeConfig(weight_method="hqq").require_known()
    nf4 = QuantizeConfig(scheme="weight-only", weight_method="nf4", bits=4)
    assert nf4.block_quantizer(8).name == "mse"  # layers of another width have the default
    # what `auto` tries
    assert QuantizeConfig(weight_method="percentile").with_scheme("weight-only").weight_method == ""
    assert nf4.with_scheme("weight-only").weight_method == "nf4"
