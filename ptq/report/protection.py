"""What was left in float because its integers do most of the damage."""

from __future__ import annotations

import msgspec


class ProtectedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that stays in float.

    Attributes:
        name: its node.
        op_type: its operator.
        share: of the noise that was found in all tensors and weights, the part that is rounded by
            this layer, from 0 to 1; neighbours that round the same tensor both count it.
    """

    name: str
    op_type: str
    share: float


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """How the output's error was brought down by leaving layers in float.

    Attributes:
        wanted_db: the SQNR that was asked for.
        before_db: that of the outputs with everything in integers that can be, the mean over the
            outputs, on some calibration samples.
        after_db: that with these layers in float, simulated.
        layers: which they are, those that do most first; empty where nothing helped.
        followed: how many others cannot be integer without them.
        work: their share of the work of all that can be integer, from 0 to 1.
        samples: how many samples that was measured on.
        trials: how many combinations were measured.
    """

    wanted_db: float
    before_db: float
    after_db: float
    layers: tuple[ProtectedLayer, ...]
    followed: int
    work: float
    samples: int
    trials: int

    @property
    def reached(self) -> bool:
        """Whether the outputs are as near as was asked for."""
        return self.after_db >= self.wanted_db
