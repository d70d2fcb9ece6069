"""How many bits each activation has: of tensors that share codes, all have as many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ptq.plan.request import Request


def common_widths(requests: Iterable[Request], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the width of every tensor for which it or another of the same codes has one wanted.

    Of several, the largest is taken: what the first and last layers read keeps its bits. Codes are
    shared along moves and multiples; a sum with a constant may share them, and is taken to. The
    parts of a concatenation do not share its codes by themselves.

    Args:
        requests: the tensors, sources first.
        wanted: widths, by tensor; tensors without one are left out of the result, unless another
            of the same codes has one.
    """
    source: dict[str, str] = {}
    for request in requests:
        copied = request.copies
        source[request.tensor] = source[copied] if copied else request.tensor
    found: dict[str, int] = {}
    for tensor, bits in wanted.items():
        if tensor in source:
            found[source[tensor]] = max(bits, found.get(source[tensor], 0))
    return {tensor: found[first] for tensor, first in source.items() if first in found}
