"""What planning is asked to decide: the activation tensors to quantize, without any graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One activation tensor that needs a scale and a zero point.

    Exactly one source is given; with a shift, there is a second to fall back on.

    Attributes:
        tensor: its name.
        observed: its values were observed under this name.
        constant: it is constant, and these are its least and its largest value.
        copies: it holds values of that tensor, which comes earlier, and shares its scale.
        factor: what the copied values are multiplied by, and so their scale; more than 0.
        shift: what is then added to them, which moves the zero point: they are copies only if that
            can be made a code of the other tensor, otherwise observed or constant.
        joins: it is the concatenation of these tensors, which come earlier.
    """

    tensor: str
    observed: str | None = None
    constant: tuple[float, float] | None = None
    copies: str | None = None
    factor: float = 1.0
    shift: float = 0.0
    joins: tuple[str, ...] = ()
