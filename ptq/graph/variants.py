"""Other forms of the same operators, faster on some machines: to be tried by measuring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import onnx_ir as ir

from ptq.graph.open_stem import open_stems, stems
from ptq.graph.shift_weights import shift_weights, wide_convolutions

#: ``stem``: the input of the first convolution is folded, which changes nothing of what it
#: computes. ``shift``: weights have zero point 1, which costs codes of 127 one step.
Variant: TypeAlias = Literal["stem", "shift"]


def possible_variants(model: ir.Model) -> dict[str, Variant]:
    """Return which node of a float model may be worth which variant."""
    found: dict[str, Variant] = dict.fromkeys(wide_convolutions(model), "shift")
    return {**found, **dict.fromkeys(stems(model), "stem")}


def apply_variants(model: ir.Model, variants: Mapping[str, Variant]) -> None:
    """Give nodes of a quantized model their variants, in place; where that cannot be, they stay.

    Args:
        model: what `emit_qdq` wrote.
        variants: by node.
    """
    open_stems(model, [name for name, variant in variants.items() if variant == "stem"])
    shift_weights(model, [name for name, variant in variants.items() if variant == "shift"])
