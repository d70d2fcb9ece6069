"""Presets: named sets of defaults for `ptq quantize`, for what matters most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults that go together.

    Attributes:
        summary: what it is for, in a line.
        settings: values of options, by their long names; an option that is given wins.
    """

    summary: str
    settings: Mapping[str, object]


#: By name. What each is worth is measured in docs/recipes.md.
PRESETS = {
    # fused operators are as fast as QDQ or a few percent faster, and load faster
    "fast": Preset("the fastest on this machine", {"format": "integer"}),
    "balanced": Preset("the defaults", {}),
    # each of these is kept only where the outputs get better by it; ranges chosen by few samples
    # clip what others need, on a detector too much for layers in float to make up for
    "accurate": Preset(
        "the least error with integer kernels, in minutes",
        {
            "rounding": "gptq",
            "bias-correct": True,
            "tweak-norms": True,
            "protect": 25,
        },
    ),
    # static files have no scales of blocks and rows, dynamic ones hold recurrent layers in 8 bits;
    # 4 bits are smaller by a third and more, and ruin convolutional networks
    "smallest": Preset(
        "the smallest file of 8 bits",
        {"scheme": "auto", "format": "integer", "place": ["all"], "prefer": "size"},
    ),
}
