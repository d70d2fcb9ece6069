"""What planning is asked to decide: the activation tensors to quantize, without any graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One activation tensor that needs a scale and a zero point.

    Exactly one source is given.

    Attributes:
        tensor: its name.
        observed: its values were observed under this name.
        constant: it is this one number.
        copies: it holds values of that tensor, which comes earlier, and shares its scale.
        joins: it is the concatenation of these tensors, which come earlier.
    """

    tensor: str
    observed: str | None = None
    constant: float | None = None
    copies: str | None = None
    joins: tuple[str, ...] = ()
