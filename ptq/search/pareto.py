"""The Pareto front of points that are to be small in several figures at once."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a point is nowhere worse than another and somewhere better; less is better."""
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the indices of the points that no other dominates, ascending.

    Of equal points all are on the front, or none. Costs O(n²), for a few tens of points.

    Args:
        points: figures of each, all of one length, of which less is better; no NaN.
    """
    return tuple(
        i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)
    )
