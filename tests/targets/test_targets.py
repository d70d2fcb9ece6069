"""Target files: valid, about operators that exist, and clear errors."""

import msgspec
import onnx
import pytest

from ptq.errors import ConfigError
from ptq.graph.candidates import ATTRIBUTE_DEFAULTS
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
        assert ATTRIBUTE_DEFAULTS[op_type, attribute] == found


@RULES
def test_only_linear_operators_and_tables_have_weights(target, op_type):
    rule = load_target(target).ops[op_type]
    assert (rule.role in ("linear", "table")) == (rule.weight is not None)
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


@RULES
def test_only_what_has_a_weight_or_a_bias_says_how_it_must_be(target, op_type):
    rule = load_target(target).ops[op_type]
    if rule.weight is None:
        assert rule.asymmetric
        assert rule.per_channel
        assert rule.asymmetric_depthwise
        assert not rule.saturates
    assert rule.integer_bias or rule.bias is not None
    # a Clip on codes stands where a Relu was absorbed, and a kernel is merged into a linear one
    assert rule.clips_codes or rule.absorbs
    assert not rule.fuses or rule.role == "elementwise"


@TARGETS
def test_only_onnxruntime_can_be_asked(name):
    assert (load_target(name).runtime == "onnxruntime") == name.startswith("ort-")


def test_each_target_takes_the_codes_its_backend_does():
    tensorrt = load_target("tensorrt")
    assert (tensorrt.activation, tensorrt.activation_symmetric) == ("int8", True)
    assert not any(r.integer_bias for r in tensorrt.ops.values() if r.bias is not None)
    assert not any(r.asymmetric for r in tensorrt.ops.values() if r.weight is not None)
    assert all(not r.output for r in tensorrt.ops.values())
    qnn = load_target("qnn")
    assert {op for op, r in qnn.ops.items() if r.weight is not None and r.per_channel} == {"Conv"}
    assert all(r.output for r in qnn.ops.values())
    # cores without dot products add two products in 16 bits: -128 * -128 * 2 does not fit
    assert QType.parse(load_target("ort-cpu-arm64").weight).qmin == -127
    assert 127 * 128 * 2 < 2**15 <= 128 * 128 * 2


@pytest.mark.parametrize("name", ["ort-cpu-x86-avx2", "ort-cpu-arm64"])
def test_a_target_that_extends_another_differs_in_what_it_says(name):
    base, target = (msgspec.to_builtins(load_target(n)) for n in ("ort-cpu-x86-vnni", name))
    changed = {key for key in base if base[key] != target[key]}
    weighted = {op for op in base["ops"] if base["ops"][op] != target["ops"][op]}
    if name == "ort-cpu-arm64":
        assert changed == {"name", "title", "weight"}
    else:
        assert changed == {"name", "title", "ops"}
        assert weighted == {"Conv", "Gemm", "MatMul"}
        for op in weighted:
            assert {**base["ops"][op], "saturates": True} == target["ops"][op]


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
