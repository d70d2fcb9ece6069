"""What was refined by looking at outputs, and what that did to the network's."""

from __future__ import annotations

import msgspec


class Refinement(msgspec.Struct, frozen=True, kw_only=True):
    """Corrected biases, and the error of the network's output before and after.

    Attributes:
        samples: on how many calibration samples.
        biases: how many biases were corrected.
        added: how many of those layers had none.
        before_db: SQNR of the outputs on some of those samples without it; ``None`` if exact.
        after_db: with it.
        kept: whether it is in the file: not where it made the outputs worse.
    """

    samples: int
    biases: int
    added: int
    before_db: float | None
    after_db: float | None
    kept: bool
