"""Figures of a check, as they would be measured; what is given takes the place of the rest."""

from __future__ import annotations

from ptq.report.check import Figure


def top1(
    drop: float,
    drop_lo: float | None = None,
    drop_hi: float | None = None,
    *,
    reference: float = 0.9,
    **fields: object,
) -> Figure:
    """Return a top-1 accuracy that dropped by so much of a whole, and the ends of its interval."""
    given = {
        "reference": reference,
        "value": reference - drop,
        "drop": drop,
        "drop_lo": drop if drop_lo is None else drop_lo,
        "drop_hi": drop if drop_hi is None else drop_hi,
        "units": 200,
    }
    return _figure("topk", "top-1 accuracy", "share", {**given, **fields})


def sqnr(
    value: float | None, lo: float | None = None, hi: float | None = None, **fields: object
) -> Figure:
    """Return an SQNR in dB, between ``lo`` and ``hi``."""
    lo, hi = value if lo is None else lo, value if hi is None else hi
    given = {"value": value, "lo": lo, "hi": hi, "units": 200}
    return _figure("sqnr", "SQNR", "dB", {**given, **fields})


def size(value: int, reference: int) -> Figure:
    """Return the size of a file in bytes, and that of the float model."""
    given = {"value": value, "reference": reference, "higher_is_better": False}
    return _figure("size_bytes", "size", "bytes", given)


def mse(value: float, reference: float | None) -> Figure:
    """Return a figure that is no share, and the float model's."""
    given = {"value": value, "reference": reference, "higher_is_better": False}
    return _figure("mse", "MSE", "number", given)


def _figure(name: str, title: str, unit: str, fields: dict[str, object]) -> Figure:
    return Figure(
        **{"name": name, "title": title, "unit": unit, "higher_is_better": True, **fields}
    )
