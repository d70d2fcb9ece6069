"""The recipe in a quantized model as a recipe file, which makes the same model again."""

from __future__ import annotations

from typing import Any

import msgspec

from ptq.config import FULL_BITS
from ptq.embedded import EmbeddedRecipe
from ptq.toml_writer import toml_lines

#: Options that are not spelled as the field of `QuantizeConfig`.
_SPELLED = {"weights_symmetric": "symmetric-weights"}


def recipe_file(made: EmbeddedRecipe) -> str:
    """Return a recipe file with every setting, the placement, and what the model was made from.

    With the float model and the calibration data, which it does not hold, `ptq quantize` writes
    the same bytes by it.
    """
    lines = ["[quantize]", *toml_lines(_options(made))]
    # written even where nothing is kept in float: without it, the next run would measure again
    placement = {"keep-float": [], **by_option(made.placement)}
    lines += ["", "[quantize.placement]", *toml_lines(placement)]
    for override in made.config.overrides:
        lines += ["", "[[quantize.override]]", *toml_lines(by_option(override))]
    made_from = {
        "ptq": made.ptq,
        "model-sha256": made.model_sha256,
        "data-sha256": made.data_sha256,
    }
    known = {key: value for key, value in made_from.items() if value is not None}
    return "\n".join([*lines, "", "[made-from]", *toml_lines(known), ""])


def by_option(settings: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of settings by the names that they have as options and in recipes.

    Those that are ``None`` are left out: that is what leaving an option out says.
    """
    fields = {n: value for n, value in msgspec.to_builtins(settings).items() if value is not None}
    return {_SPELLED.get(n, n.replace("_", "-")): value for n, value in fields.items()}


def _options(made: EmbeddedRecipe) -> dict[str, Any]:
    """Return the options of `ptq quantize` that the recipe holds."""
    config = by_option(made.config)
    # what is empty says what leaving it out says
    options = {n: v for n, v in config.items() if n != "overrides" and v not in ("", [], ())}
    activations = options.pop("activation-bits")
    if activations < FULL_BITS:
        options["bits"] = f"W{made.config.bits}A{activations}"
    if made.samples is not None:
        options["samples"] = made.samples
    if made.images is not None:
        given = msgspec.to_builtins(made.images)
        options["image"] = {name: value for name, value in given.items() if value is not None}
    return options
