"""Thresholds that a user sets, and whether figures hold them: pure functions of data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ptq.errors import ConfigError
from ptq.report.check import MAX_DROP, Figure, Held, Verdict, interval_text, percent_text

#: What to do where the noise of the evaluation set decides: count the figure as it is, or let it
#: pass.
Noise: TypeAlias = Literal["fail", "pass"]

#: Figures that are equal but for rounding are equal: one image of 200 is half a point.
_ROUNDING = 1e-12

#: Above this many samples, a number of them is no advice.
_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse than the float model a task figure may be.

    Attributes:
        value: as the user wrote it, a percentage divided by 100.
        percent: whether it was a percentage.
    """

    value: float
    percent: bool = False

    @classmethod
    def parse(cls, given: str | float) -> Drop:
        """Return the limit that ``0.5%``, ``0.005`` or ``0.3`` mean.

        Raises:
            ConfigError: it is no number, or negative.
        """
        value, percent = _number(given, MAX_DROP, "0.5% or 0.005")
        if value < 0:
            raise ConfigError(f"{MAX_DROP} {given} is negative; give 0 or more")
        return cls(value, percent)

    def of(self, figure: Figure) -> float:
        """Return the limit in the unit of a figure.

        Shares are held in points, whether the limit was written ``0.5%`` or ``0.005``. Of other
        units, a percentage is relative to the float model's figure.

        Raises:
            ConfigError: the limit would hold whatever the figure is.
        """
        if figure.unit == "share":
            if self.value >= 1:
                raise ConfigError(
                    f"{MAX_DROP} {self.value:g} allows {figure.title} a drop of 100 points and "
                    f"more; write {self.value:g}% if points are meant"
                )
            return self.value
        if not self.percent:
            return self.value
        if not figure.reference:
            raise ConfigError(
                f"{MAX_DROP} in percent is relative to the float model's {figure.title}, which is "
                "0 or infinite; give a plain number"
            )
        return self.value * abs(figure.reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What figures are held against; ``None`` holds nothing.

    Attributes:
        max_drop: of every task figure.
        min_sqnr: in dB.
        min_cosine: -1..1.
        min_agreement: of the top class with the float model's, 0..1.
        max_size_ratio: size over that of the float model, > 0.
        min_speedup: float time over quantized time, > 0.
        min_integer: share of the layers that run as integer kernels, 0..1.
    """

    max_drop: Drop | None = None
    min_sqnr: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None
    max_size_ratio: float | None = None
    min_speedup: float | None = None
    min_integer: float | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not None for name in self.__slots__)

    def figures(self) -> dict[str, str]:
        """Return the names of the figures that are held, but for the task's, with the option."""
        return {name: option for field, option, name in _DIRECT if getattr(self, field) is not None}


def share(given: str | float, option: str) -> float:
    """Return the share that ``99%`` or ``0.99`` mean.

    Raises:
        ConfigError: it is no number, or not in 0..1.
    """
    value, _ = _number(given, option, "99% or 0.99")
    if not 0 <= value <= 1:
        raise ConfigError(f"{option} {given} is no share of a whole; write 99% or 0.99")
    return value


def ratio(given: str | float, option: str) -> float:
    """Return the ratio that ``30%`` or ``0.3`` mean.

    Raises:
        ConfigError: it is no number, or not above 0.
    """
    value, _ = _number(given, option, "0.3 or 30%")
    if value <= 0:
        raise ConfigError(f"{option} {given} is not above 0; write 0.3 or 30%")
    return value


def number(given: float, option: str) -> float:
    """Return a limit that is a plain number.

    Raises:
        ConfigError: it is NaN or infinite, which would hold or miss whatever the figure is.
    """
    return _number(given, option, "a number such as 20")[0]


def _number(given: str | float, option: str, example: str) -> tuple[float, bool]:
    text = str(given).strip()
    percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError as error:
        raise ConfigError(f"{option} '{given}' is no number; write {example}") from error
    if not math.isfinite(value):
        raise ConfigError(f"{option} '{given}' is not finite; write {example}")
    return (value / 100 if percent else value), percent


#: Thresholds on a figure itself: the field, the option, and the name of the figure.
_DIRECT = (
    ("min_agreement", "--min-agreement", "agreement"),
    ("min_sqnr", "--min-sqnr", "sqnr"),
    ("min_cosine", "--min-cosine", "cosine"),
    ("max_size_ratio", "--max-size-ratio", "size_bytes"),
    ("min_speedup", "--min-speedup", "speedup"),
    ("min_integer", "--min-integer", "integer_kernels"),
)


def hold(
    figures: Sequence[Figure],
    tasks: Sequence[str],
    thresholds: Thresholds,
    *,
    noise: Noise,
    confidence: float,
) -> tuple[Held, ...]:
    """Return every figure against every threshold that holds it.

    Args:
        figures: what was measured, with all that a threshold is on.
        tasks: names of the task figures, which ``max_drop`` holds.
        thresholds: the limits.
        noise: what counts where the interval of a figure includes the limit.
        confidence: of the intervals; named in remarks.

    Raises:
        ConfigError: a threshold does not fit its figure.
    """
    return tuple(
        _judge(threshold, noise, confidence) for threshold in _all(figures, tasks, thresholds)
    )


@dataclass(frozen=True, slots=True)
class _Threshold:
    """What is held, with its interval, and the limit it may not be above or below."""

    figure: Figure
    option: str
    limit: float
    at_most: bool
    value: float
    lo: float | None
    hi: float | None

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends; one that is no number is infinite, both mean that there is no interval."""
        if self.lo is None and self.hi is None:
            return self.value, self.value
        return (
            -math.inf if self.lo is None else self.lo,
            math.inf if self.hi is None else self.hi,
        )


def _all(
    figures: Sequence[Figure], tasks: Sequence[str], thresholds: Thresholds
) -> Iterator[_Threshold]:
    named = {figure.name: figure for figure in figures}
    if thresholds.max_drop is not None:
        for figure in (named[task] for task in tasks):
            if figure.drop is None:
                raise ConfigError(
                    f"{MAX_DROP} cannot hold '{figure.name}', of which the float model's own "
                    "figure is infinite; hold it with --min-sqnr, or give another --metric"
                )
            yield _Threshold(
                figure=figure,
                option=MAX_DROP,
                limit=thresholds.max_drop.of(figure),
                at_most=True,
                value=figure.drop,
                lo=figure.drop_lo,
                hi=figure.drop_hi,
            )
    for field, option, name in _DIRECT:
        limit = getattr(thresholds, field)
        if limit is None:
            continue
        yield _direct(named[name], option, limit)


def _direct(figure: Figure, option: str, limit: float) -> _Threshold:
    at_most = option.startswith("--max")
    if figure.value is None:  # equal outputs, whose SQNR is above any
        return _Threshold(figure, option, limit, at_most, math.inf, None, None)
    if figure.unit == "bytes":
        assert figure.reference
        of_float = figure.value / figure.reference
        return _Threshold(figure, option, limit, at_most, of_float, None, None)
    return _Threshold(figure, option, limit, at_most, figure.value, figure.lo, figure.hi)


def _judge(threshold: _Threshold, noise: Noise, confidence: float) -> Held:
    figure, sign = threshold.figure, 1.0 if threshold.at_most else -1.0
    excess = sign * (threshold.value - threshold.limit)
    missed = exceeds(excess, threshold.limit)
    certain, needed, remark = True, None, ""
    lo, hi = threshold.interval
    if figure.units == 1 and math.isfinite(threshold.value):
        certain, remark = False, "of one sample, the noise is not known"
    elif lo < hi:
        ends = sorted(sign * (end - threshold.limit) for end in (lo, hi))
        over = [exceeds(end, threshold.limit) for end in ends]
        certain = over == [missed, missed]
        if not certain:
            reach = excess - ends[0] if missed else ends[1] - excess
            needed = samples_needed(figure.units, excess, reach)
            remark = _remark(threshold, confidence, needed)
    if missed and not certain and noise == "pass":
        missed, remark = False, f"missed as measured, but {remark}"
    verdict: Verdict = "missed" if missed else "holds"
    return Held(
        figure=figure.name,
        option=threshold.option,
        measured=threshold.value if math.isfinite(threshold.value) else None,
        limit=threshold.limit,
        verdict=verdict,
        certain=certain,
        needed=needed,
        remark=remark,
    )


def exceeds(excess: float, limit: float) -> bool:
    """Return whether something is past a limit by more than rounding."""
    return excess > _ROUNDING * max(1.0, abs(limit))


def samples_needed(units: int, distance: float, reach: float) -> int | None:
    """Return about how many samples tell on which side of a limit a figure is.

    The normal approximation: an interval shrinks with the root of the number of samples, and must
    reach no farther than the limit is away.

    Args:
        units: samples that there are.
        distance: of the figure from the limit.
        reach: of its interval to the side of the limit, at ``units`` samples.

    Returns:
        The number, of two significant digits; ``None`` if the figure is at the limit, so that no
        number of samples would tell, or if there are no samples.
    """
    if not units or distance == 0:
        return None
    needed = units * (reach / distance) ** 2
    if not needed <= _MOST_SAMPLES:
        return None
    digits = max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / 10**digits) * 10**digits)


def _remark(threshold: _Threshold, confidence: float, needed: int | None) -> str:
    figure = threshold.figure
    interval = interval_text(figure, *threshold.interval, drop=threshold.option == MAX_DROP)
    if figure.unit == "factor":
        return f"within the spread of the measurement ({interval}); give it more --seconds"
    samples = f"{figure.units} sample{'' if figure.units == 1 else 's'}"
    told = f"; about {needed} samples would tell" if needed is not None else ""
    return f"within the noise of {samples} ({percent_text(confidence)}: {interval}){told}"
