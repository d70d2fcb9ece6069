"""How a ratio of signal to noise reads."""

from __future__ import annotations

import math

#: For JSON, which has no infinity: noise where the signal is zero.
NO_SIGNAL_DB = -999.0


def decibels(
    value: float | None,
    *,
    equal: str = "equal",
    no_signal: str = "no signal",
    digits: int = 1,
) -> str:
    """Return an SQNR for people: ``13.3 dB``, or in words what is no number.

    Args:
        value: the ratio in decibels; ``None`` or an infinity without noise.
        equal: what to say of that.
        no_signal: what to say of `NO_SIGNAL_DB`.
        digits: how many digits follow the point.
    """
    if value is None or math.isinf(value):
        return equal
    return no_signal if value == NO_SIGNAL_DB else f"{value:.{digits}f} dB"
