"""What was refined by looking at outputs, and what that did to the network's."""

from __future__ import annotations

import msgspec


class Refinement(msgspec.Struct, frozen=True, kw_only=True):
    """One step, and the error of the network's output before and after.

    Attributes:
        step: what was done: ``seqmse``, the name of a rounding method, ``bias correction``, ``norm
            tweaking`` or ``fine-tuning``.
        layers: to how many weights, biases or norms.
        samples: on how many calibration samples.
        before_db: SQNR of the outputs without it, on other samples if there are 8 or more, else on
            those; ``None`` if exact.
        after_db: with it.
        kept: whether it is in the file: not where it made the outputs worse.
        top1: shares of right answers before and after, in 0..1, where labels are what counts.
        left: layers that it could not change, with the reason.
    """

    step: str
    layers: int
    samples: int
    before_db: float | None
    after_db: float | None
    kept: bool
    top1: tuple[float, float] | None = None
    left: dict[str, str] = {}
