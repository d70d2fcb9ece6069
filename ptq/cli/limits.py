"""Limits on a command line: numbers, or texts with a unit."""

from __future__ import annotations

from typing import Any

import click


class _Limit(click.ParamType[str | float]):
    """A number, or a percentage as text; what it may be is for its threshold to say."""

    name = "limit"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | float:
        """Take both as they are: a recipe has numbers too."""
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.fail("takes a number, or a percentage in quotes", param, ctx)
        return value


LIMIT = _Limit()
