"""Ask a session what its model wants to be fed; that also works for models `ptq` cannot read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptq.data.feeds import InputSpec
from ptq.errors import UnsupportedError
from ptq.runtime.session import Session

#: What onnxruntime calls element types.
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "object",
    **{f"tensor({name})": name for name in ("float16", "bool")},
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}


def session_inputs(session: Session) -> tuple[InputSpec, ...]:
    """Return the inputs of a model that is open.

    Raises:
        UnsupportedError: an input is no tensor, or of a type that numpy does not have.
    """
    return tuple(
        InputSpec(value.name, _dtype(value.name, value.type), tuple(value.shape))
        for value in session.get_inputs()
    )


def _dtype(name: str, type_: str) -> np.dtype[Any]:
    if type_ not in _TYPES:
        raise UnsupportedError(f"input '{name}' is {type_}, which cannot be fed from numpy")
    return np.dtype(_TYPES[type_])
