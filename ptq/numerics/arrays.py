"""Names for the array types that the signatures use, and what weights have to be."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ptq.errors import CalibrationError

AnyArray: TypeAlias = NDArray[Any]
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

#: Largest and smallest normal float32, as float64.
F32_MAX = float(np.finfo(np.float32).max)
F32_TINY = float(np.finfo(np.float32).tiny)


def finite(w: AnyArray) -> F32:
    """Return a weight as float32.

    Raises:
        CalibrationError: a weight is NaN or infinite.
    """
    weight = np.asarray(w, np.float32)
    if not np.all(np.isfinite(weight)):
        raise CalibrationError("takes a NaN or infinite value; repair or retrain the model")
    return weight
