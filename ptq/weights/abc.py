"""Weights as a sum of signs of the weights, shifted by shares of their deviation."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.errors import ConfigError
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer, in_order


class AbcQuantizer(CodebookQuantizer, frozen=True, tag="abc"):
    """A sum of signs of the weights, each shifted, times what fits best by least squares.

    ``B_i = sign(w - mean(w) + u_i std(w))``, of 0 it is 1, with ``M`` shifts ``u_i`` evenly from
    -1 to 1 (0 if there is one), and ``alpha`` the least squares of ``w = sum of alpha_i B_i``, the
    shortest one if signs of several shifts are the same. Bases of activations are not here.

    Signs of one weight differ from some shift on, so that ``M`` bases have ``M + 1`` levels, not
    ``2^M``. The paper counts ``M`` bits for them, for it stores and multiplies each base. Here it
    is the levels that are stored, and ``b`` bits have ``2^b - 1`` bases unless it is said.

    Attributes:
        bases: how many; 0 for as many as the bits can tell apart.
    """

    paper: ClassVar[str] = (
        "Lin et al., Towards Accurate Binary Convolutional Neural Network, NeurIPS 2017, section "
        "3.1 (ABC-Net; the weights)"
    )
    good_for: ClassVar[str] = (
        "2 bits, where three bases at fixed shifts come near to lq; with more bits the shifts "
        "stay small"
    )
    most_bits: ClassVar[int] = 4

    bases: Annotated[int, Meta(ge=0, le=15)] = 0

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the sums of the bases that some weight can have, and which each has.

        Raises:
            ConfigError: so many bits do not tell the levels apart.
        """
        most = (1 << bits) - 1
        count = self.bases or most
        if count > most:
            raise ConfigError(
                f"weight quantizer 'abc': {count} bases have {count + 1} levels, which {bits} bits "
                f"do not tell apart; use abc:bases={most}, or more bits"
            )
        limits = _limits(rows, count)
        index = np.zeros(rows.shape, np.intp)
        for i in range(count):
            index += rows >= limits[:, i, None]
        return in_order(_least_squares(rows, index, count), index)


def _limits(rows: F32, count: int) -> F64:
    """Return from where on each base is 1, ascending, shape ``(rows, count)``."""
    values = rows.astype(np.float64, order="C")
    size = max(rows.shape[1], 1)
    mean = values.sum(axis=1, keepdims=True) / size
    values -= mean
    deviation = np.sqrt((values**2).sum(axis=1, keepdims=True) / size)
    shifts = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    return np.asarray(mean + shifts * deviation)


def _least_squares(rows: F32, index: AnyArray, count: int) -> F64:
    """Return the levels of least squares, the lowest bases being 1 first; ``(rows, count + 1)``."""
    patterns = np.where(np.arange(count) < np.arange(count + 1)[:, None], 1.0, -1.0)
    slots = (index + np.arange(len(rows))[:, None] * (count + 1)).reshape(-1)
    size = len(rows) * (count + 1)
    weights = rows.astype(np.float64).reshape(-1)
    counts = np.bincount(slots, minlength=size).reshape(-1, count + 1)
    sums = np.bincount(slots, weights, minlength=size).reshape(-1, count + 1)
    products = patterns.T @ (patterns * counts[:, :, None])
    inverse = np.linalg.pinv(products, rcond=1e-10, hermitian=True)
    alphas = inverse @ (patterns.T @ sums[:, :, None])
    return np.asarray((patterns @ alphas)[:, :, 0])
