"""Presets are data: every one must be a set of options that exist and go together."""

from __future__ import annotations

import pytest

from ptq.cli import recipes
from ptq.cli.quantize import command, config_of
from ptq.config import QuantizeConfig
from ptq.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_the_settings_of_a_preset_are_options_and_make_a_configuration(name):
    options = recipes.by_key(command)
    assert PRESETS[name].settings.keys() <= options.keys()
    arguments = ["model.onnx", "--no-recipe", "--preset", name]
    with command.make_context("quantize", arguments) as context:
        config = config_of(context.params, recipes.found(context))
        config.require_known()
        for key, value in PRESETS[name].settings.items():
            parsed = context.params[options[key].name]
            assert parsed == (tuple(value) if isinstance(value, list) else value)


def test_balanced_is_the_defaults():
    with command.make_context("quantize", ["m.onnx", "--no-recipe"]) as context:
        assert config_of(context.params, recipes.found(context)) == QuantizeConfig()
    assert PRESETS["balanced"].settings == {}


@pytest.mark.parametrize("asked", [None, *PRESETS])
@pytest.mark.parametrize("other", PRESETS)
def test_settings_with_another_preset_are_those_of_asking_for_it(asked, other):
    def parsed(preset):
        given = ["--preset", preset] if preset else []
        return command.make_context(
            "quantize", ["m.onnx", "--no-recipe", "--prefer", "speed", *given]
        )

    with parsed(asked) as context:
        found = recipes.with_preset(context, other)
    with parsed(other) as context:
        expected = context.params
    assert {**found, "preset": other} == expected
