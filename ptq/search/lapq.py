"""LAPQ: the norm of the ranges by the output error, then Powell's method over all of them.

Reference: Nahshan et al., "Loss Aware Post-training Quantization", Machine Learning 2021, algorithm
1. Departs from it in the loss, which is the error of the outputs and needs no labels; in that the
directions of Powell's method go from the whole network to single tensors, so that a bounded number
of trials is spent where most is to be had; and in that the result has to prove itself on samples
which the search has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ptq.errors import CalibrationError
from ptq.numerics.arrays import F64
from ptq.search.output_error import decibels, mean_db
from ptq.search.ranges import LEAST_SAMPLES, Measure, RangeResult, certain

#: The norms that are measured; the reference takes ten from 2 to 4.
NORMS = (2.0, 2.5, 3.0, 3.5, 4.0)

#: One unit of a search direction, in octaves: the first step of a line search is a fifth or so.
_STEP = 0.25

#: Factors beyond this many octaves are not tried.
_MOST = 2.0

#: What counts for nothing can be measured: as an SQNR in dB.
_HOPELESS_DB = -60.0

#: Of directions, line searches end within this many units, and of the SQNR within this share.
_TOLERANCES = {"xtol": 0.1, "ftol": 1e-3}


def search_lapq(
    tensors: Callable[[str], Sequence[str]],
    measure: Measure,
    *,
    samples: int,
    trials: int,
    on_trial: Callable[[], None] = lambda: None,
) -> RangeResult:
    """Return the norm of least output error, and factors of tensors that make it less.

    Costs at most one measurement more than there are norms, and ``trials`` of half the samples.

    Args:
        tensors: those that can have a range of their own with a method, in graph order.
        measure: the output error of a method with others for some tensors, by sample.
        samples: how many samples there are.
        trials: how many measurements Powell's method may take.
        on_trial: called after each measurement.

    Raises:
        CalibrationError: the error cannot be measured with any norm.
    """
    found: dict[str, F64] = {}

    def try_norm(norm: float) -> None:
        method = method_of(norm)
        errors = measure(method, {}, math.inf, None)
        if errors is not None:
            found[method] = errors
        on_trial()

    for norm in NORMS:
        try_norm(norm)
    if not found:
        raise CalibrationError(
            "the outputs of no range method can be compared with the float model's: they are not "
            "finite or vary in shape; name a method, as --calib mse"
        )
    vertex = least_of_parabola(
        [n for n in NORMS if method_of(n) in found], [-mean_db(e) for e in found.values()]
    )
    if vertex is not None:
        try_norm(round(vertex, 2))
    # of equals the first
    best = max(found, key=lambda m: mean_db(found[m]))
    turned = _Turned(best, tensors(best), measure, on_trial)
    result = found[best]
    if samples >= 2 * LEAST_SAMPLES and trials and turned.tensors:
        result = turned.search(found[best], trials)
    return RangeResult(
        method=best,
        tensors=turned.kept,
        sqnr_db={m: mean_db(e) for m, e in found.items()},
        samples={m: e.size for m, e in found.items()},
        best_db=mean_db(result),
        trials=turned.tried,
    )


def method_of(norm: float, factor: float = 1.0) -> str:
    """Return the range method of a norm, with its ends times a factor."""
    text = f"lp:norm={norm:g}"
    return text if factor == 1.0 else f"{text},factor={factor:.4g}"


def least_of_parabola(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return where a parabola fitted to points is least, if that is inside and not one of them."""
    if len(x) < 3:
        return None
    a, b, _ = np.polyfit(x, y, 2)
    if a <= 0:
        return None
    vertex = float(-b / (2 * a))
    known = any(abs(vertex - other) < 0.01 for other in x)
    return vertex if min(x) < vertex < max(x) and not known else None


def directions(count: int) -> F64:
    """Return directions from coarse to fine: all tensors, then each half against the other.

    They are orthogonal and as many as there are tensors (a Haar basis), so that every vector is
    within reach.
    """
    rows = [np.ones(count)]
    parts = [(0, count)]
    for start, end in parts:  # it grows
        if end - start < 2:
            continue
        middle = (start + end + 1) // 2
        row = np.zeros(count)
        # orthogonal to the sum of the part
        row[start:middle], row[middle:end] = 1.0, -(middle - start) / (end - middle)
        rows.append(row)
        parts += [(start, middle), (middle, end)]
    return np.array(rows)


@dataclass(slots=True)
class _Turned:
    """Ranges of one norm, times factors that Powell's method finds."""

    method: str
    tensors: Sequence[str]
    measure: Measure
    on_trial: Callable[[], None]
    kept: dict[str, str] = field(default_factory=dict)
    tried: int = 0

    def search(self, errors: F64, trials: int) -> F64:
        """Keep factors that make the errors less by more than noise; return the errors then."""
        from scipy.optimize import minimize

        searched, judged = range(0, errors.size, 2), range(1, errors.size, 2)
        best = np.zeros(len(self.tensors))
        most, least = mean_db(errors[searched]), errors[searched]

        def loss(x: F64) -> float:
            nonlocal best, most, least
            found = self.measure(self.method, self._methods(x), math.inf, searched)
            self.tried += 1
            self.on_trial()
            db = _HOPELESS_DB if found is None else mean_db(found)
            if found is not None and db > most:
                best, most, least = x.copy(), db, found
            return -db

        minimize(
            loss,
            best,
            method="Powell",
            options={**_TOLERANCES, "maxfev": trials, "direc": directions(best.size)},
        )
        after = self.measure(self.method, self._methods(best), math.inf, judged)
        if after is None or not certain(decibels(after) - decibels(errors[judged])):
            return errors
        self.kept = self._methods(best)
        result = np.empty_like(errors)
        result[searched], result[judged] = least, after
        return result

    def _methods(self, x: F64) -> dict[str, str]:
        norm = float(self.method.partition("=")[2])
        factors = 2 ** np.clip(_STEP * x, -_MOST, _MOST)
        found = {t: method_of(norm, float(f)) for t, f in zip(self.tensors, factors, strict=True)}
        return {tensor: method for tensor, method in found.items() if method != self.method}
