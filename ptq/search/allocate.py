"""Choose the width of every layer: the least damage at a cost, or the least cost at a damage.

The damage of a choice is taken to be the sum of the damages of its layers. That is a model: noise
adds up in power where it is small and independent, and so to measure what was chosen is the
caller's duty. In the model, the answer is exact.

Reference: Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", ICML
2021, section 3.4 (integer programming); Yao et al., "HAWQ-V3", ICML 2021, section 3.4 (costs that
are latencies).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptq.errors import ConfigError
from ptq.numerics.arrays import F64

#: A layer that stays in float.
FLOAT = 32

#: Widths that a layer may have.
WIDTHS = (FLOAT, 16, 8, 7, 6, 5, 4, 3, 2)

#: The solver keeps constraints to about this; what it gives is summed up exactly afterwards.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Choice:
    """One way of holding one layer.

    Attributes:
        width: bits of its numbers; ``FLOAT`` for float32.
        damage: what it does to the output, such as noise relative to the signal; 0 or more.
        cost: what it takes, in bytes, milliseconds or layers; 0 or more.
        method: the weight quantizer; empty for that of the settings.
    """

    width: int
    damage: float
    cost: float
    method: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be added up."""
        if self.width not in WIDTHS:
            raise ConfigError(f"a width of {self.width} bits; choose one of {WIDTHS}")
        for what, value in (("damage", self.damage), ("cost", self.cost)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"a {what} of {value}; it must be 0 or more, and finite")


@dataclass(frozen=True, slots=True)
class Allocation:
    """A choice for every layer.

    Attributes:
        choices: what was chosen, layer by layer.
    """

    choices: tuple[Choice, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each layer."""
        return tuple(choice.width for choice in self.choices)

    @property
    def damage(self) -> float:
        """The sum of the damages."""
        return math.fsum(choice.damage for choice in self.choices)

    @property
    def cost(self) -> float:
        """The sum of the costs."""
        return math.fsum(choice.cost for choice in self.choices)


def least_damage(layers: Sequence[Sequence[Choice]], budget: float) -> Allocation:
    """Return the choices of least damage that cost no more than a budget.

    Args:
        layers: what each layer may be, at least one choice each.
        budget: in the unit of the costs.

    Raises:
        ConfigError: even the cheapest choices cost more, or a layer has no choice.
    """
    damages, costs = _table(layers, "damage"), _table(layers, "cost")
    return _solve(layers, damages, costs, budget, "cost")


def least_cost(layers: Sequence[Sequence[Choice]], limit: float) -> Allocation:
    """Return the cheapest choices that do no more damage than a limit.

    Args:
        layers: what each layer may be, at least one choice each.
        limit: in the unit of the damages.

    Raises:
        ConfigError: even the best choices do more, or a layer has no choice.
    """
    damages, costs = _table(layers, "damage"), _table(layers, "cost")
    return _solve(layers, costs, damages, limit, "damage")


def _table(layers: Sequence[Sequence[Choice]], field: str) -> list[F64]:
    if any(not choices for choices in layers):
        raise ConfigError("every layer needs at least one choice of width")
    return [np.asarray([getattr(c, field) for c in choices], np.float64) for choices in layers]


def _solve(
    layers: Sequence[Sequence[Choice]],
    objective: Sequence[F64],
    used: Sequence[F64],
    limit: float,
    what: str,
) -> Allocation:
    least = math.fsum(float(u.min()) for u in used)
    if not least <= limit:
        raise ConfigError(
            f"no choice of widths has a {what} of {limit:.6g} or less; the least is {least:.6g}"
        )
    if not layers:
        return Allocation(())
    # the solver's tolerance may let a choice pass that is a little too much: then ask for less
    margin = 0.0
    while True:
        chosen = _milp(objective, used, limit, margin)
        found = [layer[i] for layer, i in zip(layers, chosen, strict=True)]
        total = math.fsum(float(u[i]) for u, i in zip(used, chosen, strict=True))
        if total <= limit:
            return Allocation(tuple(found))
        margin = max(2 * margin, _TOLERANCE)


def _milp(objective: Sequence[F64], used: Sequence[F64], limit: float, margin: float) -> list[int]:
    """Return which choice of each layer is best; the least of what is used if nothing else fits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    sizes = [len(o) for o in objective]
    layer_of = np.repeat(np.arange(len(sizes)), sizes)
    # above the least that has to be, in parts of what there is to spare: fit for tolerances
    floor = [float(u.min()) for u in used]
    spare = limit - math.fsum(floor)
    extra = np.concatenate([u - u.min() for u in used])
    usable = extra <= spare
    weights = np.where(usable, extra, 0.0) / (spare or 1.0)
    value = np.concatenate(objective)
    one_each = csr_array((np.ones(len(value)), (layer_of, np.arange(len(value)))))
    found = milp(
        value / (value.max() or 1.0),
        integrality=np.ones(len(value)),
        bounds=Bounds(0, usable.astype(np.float64)),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(weights[np.newaxis], -np.inf, max(1.0 - margin, 0.0)),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:  # only the least is left within this margin
        return [int(u.argmin()) for u in used]
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        int(found.x[start : start + size].argmax())
        for start, size in zip(starts, sizes, strict=True)
    ]
