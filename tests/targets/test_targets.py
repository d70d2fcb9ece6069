"""Target files: valid, about operators that exist, and clear errors."""

import msgspec
import onnx
import pytest

from ptq.errors import ConfigError
from ptq.graph.sites import _ATTRIBUTE_DEFAULTS
from ptq.numerics.qtype import QType
from ptq.targets import OpRule, Target, load_target, target_names

TARGETS = pytest.mark.parametrize("name", target_names())
RULES = pytest.mark.parametrize(
    ("target", "op_type"), [(n, op) for n in target_names() for op in load_target(n).ops]
)

#: The opset that models are upgraded to before they are quantized.
OPSET = 21


def schema(op_type: str) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op_type, OPSET, "")


def test_there_is_the_default_target():
    assert "ort-cpu-x86-vnni" in target_names()
    assert target_names() == sorted(target_names())


@TARGETS
def test_a_target_is_named_after_its_file_and_has_types(name):
    target = load_target(name)
    assert target.name == name
    assert target.title
    assert QType.parse(target.activation).bits == QType.parse(target.weight).bits == 8


def test_an_unknown_target_is_an_error_with_the_choices():
    names = ", ".join(target_names())
    with pytest.raises(ConfigError, match=f"unknown target 'tpu'; choose one of: {names}"):
        load_target("tpu")


@pytest.mark.parametrize(
    "name", ["", ".", "../targets/ort-cpu-x86-vnni", "target.py", "ort-cpu-x86-vnni.toml"]
)
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError, match="unknown target"):
        load_target(name)


@RULES
def test_a_rule_is_about_an_operator_that_exists(target, op_type):
    rule, operator = load_target(target).ops[op_type], schema(op_type)
    names = [i.name for i in operator.inputs]
    variadic = operator.inputs[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    for index in (rule.weight, rule.bias):
        assert index is None or index < len(names)
    assert variadic or rule.inputs <= len(names)
    assert rule.inputs > 0 or variadic
    assert set(rule.when) <= set(operator.attributes)


@RULES
def test_what_a_rule_asks_about_an_attribute_has_a_default(target, op_type):
    for attribute in load_target(target).ops[op_type].when:
        default = schema(op_type).attributes[attribute].default_value
        found = onnx.helper.get_attribute_value(default)
        found = found.decode() if isinstance(found, bytes) else found
        assert _ATTRIBUTE_DEFAULTS[op_type, attribute] == found


@RULES
def test_only_linear_operators_have_weights(target, op_type):
    rule = load_target(target).ops[op_type]
    assert (rule.role == "linear") == (rule.weight is not None)
    assert rule.bias is None or rule.role == "linear"
    # a move that computed something would not have the scale of its input
    assert not (rule.role == "move" and rule.absorbs)


@TARGETS
def test_an_operator_has_a_rule_or_a_reason(name):
    target = load_target(name)
    assert not target.ops.keys() & target.left_float.keys()
    for op_type, why in target.left_float.items():
        assert schema(op_type)
        assert why
        assert not why.endswith(".")
    for rule in target.ops.values():
        assert set(rule.after) <= set(target.ops)


@pytest.mark.parametrize(
    "text",
    [
        'title = "t"\nactivation = "uint8"',
        'title = "t"\nactivation = "uint8"\nweight = "int8"\n[ops.Conv]\nrole = "magic"',
        'title = "t"\nactivation = "uint8"\nweight = "int8"\n[ops.Conv]\nrole = "move"\nspeed = 3',
        'title = "t"\nactivation = "uint8"\nweight = "int8"\ncolour = "blue"\n[ops]',
    ],
)
def test_a_field_that_is_missing_wrong_or_unknown_is_found(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "t", **msgspec.toml.decode(text)}, Target)


def test_rules_have_the_defaults_of_the_common_case():
    rule = msgspec.convert({"role": "move"}, OpRule)
    assert (rule.inputs, rule.output, rule.absorbs, rule.after, rule.when) == (
        1,
        True,
        False,
        (),
        {},
    )
