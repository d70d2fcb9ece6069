"""Why nodes were left in float, summed up: one reason, however many operators it holds for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ptq.report.report import FloatNodes


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason.

    Attributes:
        why: what holds for all of the nodes.
        operators: how many nodes there are of each type, the most common first.
        nodes: each node with what holds for it alone, which may be nothing.
    """

    why: str
    operators: dict[str, int]
    nodes: tuple[tuple[str, str], ...]


def reasons_of(groups: Iterable[FloatNodes]) -> list[Reason]:
    """Return the reasons, that of the most nodes first.

    Up to its first colon a reason is general; what follows are details of some nodes.
    """
    operators: dict[str, Counter[str]] = {}
    nodes: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        why, _, detail = group.why.partition(": ")
        operators.setdefault(why, Counter())[group.op_type] += len(group.names)
        nodes.setdefault(why, []).extend((name, detail) for name in group.names)
    ranked = sorted(operators, key=lambda why: -operators[why].total())
    return [Reason(why, dict(operators[why].most_common()), tuple(nodes[why])) for why in ranked]
