"""The settings of a run, as a recipe file would ask for them."""

from __future__ import annotations

from ptq.config import QuantizeConfig
from ptq.extracting import by_option
from ptq.report.names import visible
from ptq.toml_writer import toml_lines


def settings_text(config: QuantizeConfig) -> str:
    """Return the settings as TOML, and beside them which are the default; empty ones left out."""
    default, given = by_option(QuantizeConfig()), by_option(config)
    given.pop("overrides", None)
    kept = {name: value for name, value in given.items() if value not in ("", [], ())}
    notes = {name: "default" for name, value in kept.items() if value == default.get(name)}
    lines = ["[quantize]", *toml_lines(kept, notes)]
    for override in config.overrides:
        lines += ["", "[[quantize.override]]", *toml_lines(by_option(override))]
    return "\n".join(map(visible, lines))
