"""By which widths a network is trained to few bits: at once, or step by step.

Reference: Zhuang et al., "Towards Effective Low-bitwidth Convolutional Neural Networks", CVPR 2018:
section 3.2 (two-stage optimization) and 3.3 (progressive quantization).
"""

from __future__ import annotations

from typing import NamedTuple

_FULL = 8


class Widths(NamedTuple):
    """Bits of what is trained by the method. Wider grids, as of first and last layers, stay."""

    weights: int
    activations: int


def widths_of(phases: str, last: Widths) -> tuple[Widths, ...]:
    """Return the widths of each phase of training, those of the result last.

    Without activations of few bits, a first stage with weights alone is all there is.

    Args:
        phases: ``direct``: at the widths of the result. ``two-stage``: weights first, with
            activations of 8 bits. ``progressive``: from 8 bits down, by halves.
        last: the widths of the result.
    """
    if phases == "two-stage":
        first = Widths(last.weights, _FULL)
        return (last,) if first == last else (first, last)
    found = [last]
    while phases == "progressive" and found[0] != (_FULL, _FULL):
        found.insert(0, Widths(min(_FULL, 2 * found[0][0]), min(_FULL, 2 * found[0][1])))
    return tuple(found)


def shared_out(steps: int, phases: int) -> tuple[int, ...]:
    """Return how many of the steps each phase has: as many as the others, the last the rest too."""
    each = max(1, steps // phases)
    return (*(each for _ in range(phases - 1)), max(1, steps - each * (phases - 1)))
