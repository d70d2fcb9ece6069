"""Levels that are sums of a learned basis: LQ-Nets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.calib.levels import Levels
from ptq.calib.nonuniform import NonUniformSolver, Points, uniform_levels
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Rounds at most, and the relative change of the basis that ends them.
_ROUNDS, _STABLE = 100, 1e-9

#: What the basis before counts for, as the authors' code has it: of levels that nothing goes to.
_RIDGE = 1e-4


class LqSolver(NonUniformSolver, frozen=True, tag="lq"):
    """Levels ``v.b`` of all ``b`` in ``{0, 1}^bits``, with the basis v fitted to the values.

    QEM, the paper's algorithm 1: values go to the nearest level; then v is the least-squares
    solution for the bits that they have, and so on. It starts from the basis of the uniform grid of
    least error, ``step (1, 2, 4, ...)``, and keeps the best it sees, so that the squared error is
    never more than that of `mse`, but for the 256 codes that levels are rounded to. Such levels
    are sums of products of bits, for hardware with kernels of single bits; onnxruntime looks them
    up.

    The paper has it for what a Relu puts out. Of a tensor of both signs, levels are ``v.b - c``
    with an offset c that is fitted as well and then moved so that 0 is a level.
    """

    paper: ClassVar[str] = (
        "Zhang et al., LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural "
        "Networks, ECCV 2018, section 3.2 and algorithm 1"
    )
    good_for: ClassVar[str] = (
        "2 to 4 bits on hardware with kernels of single bits: within half a dB of mse, mostly "
        "above it"
    )
    two_sided: ClassVar[str] = "given levels with an offset"

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of least error seen."""
        uniform = uniform_levels(stats, qtype)
        steps = np.asarray(uniform.values)
        step = float(np.min(np.diff(steps))) if steps.size > 1 else 1.0
        sign = -1.0 if steps[0] < 0 == steps[-1] else 1.0
        basis = np.asarray(sign * step * 2.0 ** np.arange(qtype.bits))
        if points.x[0] < 0 < points.x[-1]:
            basis = np.append(basis, steps[0])
        found = qem(points, basis, qtype.bits)
        return found if points.error(found) < points.error(uniform) else uniform


def qem(points: Points, basis: F64, bits: int) -> Levels:
    """Return the levels of the best basis that alternation finds.

    Args:
        points: the values.
        basis: where to start; one entry more than there are bits is an offset.
        bits: how many there are.
    """
    # an offset has a bit that is always set
    codes = (np.arange(2**bits)[:, None] >> np.arange(basis.size)) & 1
    codes[:, bits:] = 1
    best = _levels(np.asarray(codes @ basis))
    least = points.error(best)
    for _ in range(_ROUNDS):
        values = codes @ basis
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        count, total, _ = points.within((ordered[:-1] + ordered[1:]) / 2)
        used = codes[order].astype(np.float64)
        gram = used.T @ (count[:, None] * used)
        ridge = _RIDGE * np.trace(gram) / basis.size * np.eye(basis.size)
        after = np.linalg.solve(gram + ridge, used.T @ total + ridge @ basis)
        found = _levels(np.asarray(codes @ after))
        error = points.error(found)
        if error < least:
            best, least = found, error
        moved = float(np.max(np.abs(after - basis)))
        basis = after
        if moved <= _STABLE * float(np.max(np.abs(basis))):
            break
    return best


def _levels(values: F64) -> Levels:
    """Return levels, moved so that the one nearest to zero is zero."""
    return Levels.nearest(values - values[np.argmin(np.abs(values))])
