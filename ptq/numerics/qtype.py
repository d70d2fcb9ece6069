"""The integer grids: how many bits, signed or not, and the numpy type that holds the codes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptq.errors import ConfigError

_SPELLING = re.compile(r"(u?)int([1-9][0-9]?)(_narrow)?")
_MAX_BITS = 16


@dataclass(frozen=True, slots=True)
class QType:
    """One grid of integer codes.

    Attributes:
        bits: 1 to 16.
        signed: two's complement if true, else from 0 up.
        narrow: leave out the lowest code, so that a signed grid is symmetric about 0.
    """

    bits: int
    signed: bool
    narrow: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= _MAX_BITS:
            raise ConfigError(f"a grid of {self.bits} bits is not supported; use 1 to {_MAX_BITS}")
        if self.narrow and not (self.signed and self.bits > 1):
            raise ConfigError("only a signed grid of 2 bits or more can be narrow")

    @classmethod
    def parse(cls, name: str) -> QType:
        """Return the grid that ``str`` spells this way, as in ``uint8`` or ``int4_narrow``."""
        match = _SPELLING.fullmatch(name)
        if match is None:
            raise ConfigError(
                f"unknown integer type '{name}'; write int8, uint8, int16 or the like"
            )
        return cls(int(match[2]), signed=not match[1], narrow=bool(match[3]))

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return int(self.narrow) - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric quantizer."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return self.qmax - self.qmin + 1

    @property
    def storage(self) -> np.dtype[Any]:
        """The smallest numpy integer type that holds every code."""
        width = 8 if self.bits <= 8 else 16
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")

    @property
    def name(self) -> str:
        """The ONNX name of the type, the same for a narrow grid: ``int8``, ``uint4``."""
        return f"{'' if self.signed else 'u'}int{self.bits}"

    def __str__(self) -> str:
        return self.name + ("_narrow" if self.narrow else "")


INT16 = QType(16, signed=True)
UINT16 = QType(16, signed=False)
INT8 = QType(8, signed=True)
INT8_NARROW = QType(8, signed=True, narrow=True)
UINT8 = QType(8, signed=False)
INT4 = QType(4, signed=True)
UINT4 = QType(4, signed=False)
INT2 = QType(2, signed=True)
UINT2 = QType(2, signed=False)
