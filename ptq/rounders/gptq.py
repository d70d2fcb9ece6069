"""GPTQ, and its codes and scales fitted to one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ptq.numerics.solutions import Solution, solutions
from ptq.rounders.base import Rounder, Task


class GptqRounder(Rounder, frozen=True, tag="gptq"):
    """One input after the other, each making up for what those before it lost."""

    paper: ClassVar[str] = (
        "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained "
        "Transformers, ICLR 2023"
    )
    good_for: ClassVar[str] = "the first to try: seconds, and most of what there is to gain"

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes of GPTQ, then these with scales and codes fitted to one another."""
        return solutions(task.w, task.moments, task.nearest.grid, task.damping, task.block)
