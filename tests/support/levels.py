"""Rows of weights of a known distribution, and what levels for them are worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from ptq.weights.codebook import Codebook

#: Worked examples of methods, computed by an independent program.
VECTORS = json.loads((Path(__file__).parents[1] / "numerics" / "vectors.json").read_text())

#: The weights of these examples, as the one row of a matrix.
WORKED = np.array([VECTORS["inputs"]["w"]], np.float32)


def distributed(kind: str, count: int = 20_000) -> np.ndarray:
    """Return one row at evenly spaced quantiles, so that means over it are integrals.

    The outermost quantile that there is cuts the tails: variance is 1e-4 too small at most.
    """
    shares = (np.arange(count) + 0.5) / count
    tail = np.log(2 * np.minimum(shares, 1 - shares))
    of = {
        "normal": ndtri(shares),
        "laplace": np.where(shares < 0.5, tail, -tail),
        "uniform": 2 * shares - 1,
    }
    return of[kind][None].astype(np.float32)


def values_of(book: Codebook) -> np.ndarray:
    """Return what each weight becomes, float64, before levels are rounded to codes of int8."""
    return np.take_along_axis(book.levels, book.index, axis=1)


def relative_error(rows: np.ndarray, book: Codebook) -> float:
    """Return the sum of squared errors over the sum of squares."""
    exact = rows.astype(np.float64)
    return float(np.sum((values_of(book) - exact) ** 2) / np.sum(exact**2))
