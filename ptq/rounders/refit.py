"""What codes stand for in closed form, then the codes, then what they stand for once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from ptq.numerics.admm import Eigenbasis, Schedule, round_by_admm
from ptq.numerics.arrays import F64
from ptq.numerics.gptq import Grid, round_by_gptq, with_damping
from ptq.numerics.level_fit import integer_levels, lloyd, refit_codebook
from ptq.numerics.projection import nearest_codes
from ptq.numerics.refit import refit_scales
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class RefitRounder(Rounder, frozen=True, tag="refit"):
    """The levels of codebooks by the outputs, in closed form, and codes for them, in turns.

    Of codebooks whose levels are free (k-means, k-quantiles), ``c = (A^T H A)^-1 A^T H w`` for
    each row, ``A`` telling which weight has which level; then each code takes the level that is
    best while all others stay; then levels once more. It starts from k-means weighted by the
    squares of inputs, and codes for it by ADMM, by GPTQ or to nearest. A level of 0 stays 0.
    Levels become codes of int8 at the end, before a last round over scales and codes.

    Of uniform codes and of levels in fixed proportion, it is the scale that is solved for,
    ``s = q^T H w / q^T H q``.

    Attributes:
        start: how the first codes are found.
        rounds: how often levels follow codes, and codes levels.
    """

    paper: ClassVar[str] = (
        "least squares of the outputs for every level, as Wang et al., Two-Step Quantization, CVPR "
        "2018, section 3.3, have it for one scale; from k-means as in Choi et al., Towards the "
        "Limit of Network Quantization, ICLR 2017"
    )
    good_for: ClassVar[str] = (
        "codebooks with free levels (kmeans) at 2 to 4 bits: 0.5 to 1 dB better than gptq"
    )
    start: Literal["admm", "gptq", "nearest"] = "admm"
    rounds: Annotated[int, Meta(ge=1)] = 1

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield codes at the levels that there are, or weighted k-means; then fitted ones."""
        damped = with_damping(task.moments, task.damping)
        if task.free_levels:
            yield from self._with_levels(task, damped)
            return
        grid, block = task.nearest.grid, task.block
        found = Solution(self._codes(task, grid, damped), grid)
        yield found
        for _ in range(self.rounds):
            found = fitted(task.w, found, damped, block)
        if block is not None:
            scale = refit_scales(task.w, found.codes, damped, found.grid, block)
            found = replace(found, grid=replace(found.grid, scale=scale))
        yield found

    def _with_levels(self, task: Task, damped: F64) -> Iterator[Solution]:
        """Yield weighted k-means, then levels and codes fitted to one another."""
        w, grid = task.w, task.nearest.grid
        assert grid.levels is not None
        counts = np.diagonal(damped, axis1=1, axis2=2)[:, None, :]
        grid = replace(grid, levels=lloyd(w / grid.scale, grid.levels, counts))
        yield integer_levels(Solution(nearest_codes(w, grid), grid))
        found = Solution(self._codes(task, grid, damped), grid)
        found = refit_codebook(w, found, damped, self.rounds)
        yield fitted(w, integer_levels(found), damped, task.block)

    def _codes(self, task: Task, grid: Grid, damped: F64) -> F64:
        """Return the first codes of a grid."""
        if self.start == "gptq":
            return round_by_gptq(task.w, task.moments, grid, damping=task.damping)
        nearest = Solution(nearest_codes(task.w, grid), grid)
        if self.start == "nearest":
            return nearest.codes
        return round_by_admm(task.w, Eigenbasis.of(damped), nearest, None, Schedule()).codes
