"""What each layer may have where a search gives it a width of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ptq.graph.store_narrow import stored_bytes
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32
from ptq.numerics.coding import coding_of
from ptq.search.allocate import Choice
from ptq.weights import WeightQuantizer

#: Widths. Of 2 bits, rounding to a grid leaves too little of any layer.
MENU = (8, 6, 5, 4, 3)

#: The widths of which the damage is measured. That of others is in proportion to the error of the
#: weight: noise that small adds up in power.
MEASURED = (4, 3)


class Form(NamedTuple):
    """One way of holding a weight.

    Attributes:
        bits: its width.
        method: the weight quantizer; empty for that of the settings.
    """

    bits: int
    method: str = ""


def forms_of(method: WeightQuantizer) -> tuple[Form, ...]:
    """Return what layers may have, the widest first: widths, and what else the method searches."""
    others = method.menu()
    return tuple(
        Form(bits, name)
        for bits in MENU
        for name in (others if others and method.has_width(bits) else ("",))
    )


def measured_of(forms: tuple[Form, ...]) -> tuple[Form, ...]:
    """Return the ways of which the damage is measured."""
    return tuple(form for form in forms if form.bits in MEASURED)


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight of which the width is chosen.

    Attributes:
        name: of the weight.
        size: how many numbers it has.
        choices: what it may be; costs are in bytes of the file.
        coded_bits: of each choice, what an entropy coder would need for a number on average.
    """

    name: str
    size: int
    choices: tuple[Choice, ...]
    coded_bits: tuple[float, ...]

    def in_bits(self, *, coded: bool) -> Layer:
        """Return the same with costs in bits, coded or as codes are wide."""
        bits = self.coded_bits if coded else [choice.width for choice in self.choices]
        return self._with_costs([each * self.size for each in bits])

    def in_coded_bytes(self) -> Layer:
        """Return the same with costs in bytes of a compressed file."""
        return self._with_costs([each * self.size / 8 for each in self.coded_bits])

    def _with_costs(self, costs: list[float]) -> Layer:
        pairs = zip(self.choices, costs, strict=True)
        return replace(self, choices=tuple(replace(c, cost=cost) for c, cost in pairs))


def layer_of(
    name: str, w: F32, tensors: Mapping[Form, QTensor], measured: Mapping[Form, float]
) -> Layer:
    """Return what a layer may be.

    Args:
        name: of the weight.
        w: the weight.
        tensors: it in all ways, rounded to nearest.
        measured: the damage of the ways that were measured.
    """
    errors = {form: _squared(w, tensor) for form, tensor in tensors.items()}
    wide = [form for form in measured if form.bits == max(MEASURED)]

    def damage(form: Form) -> float:
        known = Form(max(MEASURED), form.method)
        if known not in measured:
            known = wide[0]
        return measured.get(form, measured[known] * errors[form] / (errors[known] or 1.0))

    choices = [
        Choice(form.bits, damage(form), stored_bytes(w.size, form.bits), form.method)
        for form in tensors
    ]
    coded = tuple(coding_of([tensor]).entropy_bits for tensor in tensors.values())
    return Layer(name, w.size, tuple(choices), coded)


def _squared(w: F32, tensor: QTensor) -> float:
    return float(np.square(tensor.dequantize() - w, dtype=np.float64).sum())
