"""The gradient of sums of products over named axes: a sum of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Einsum")
def einsum(at: Backward) -> Grads:
    """By each operand, its term is the result, and the result takes its place among the others."""
    equation = at.text("equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    _check(at, operands, result, covered=bool(arrow) and "." not in equation)
    values = [at.x(i) for i in range(len(operands))]
    grads = []
    for i, term in enumerate(operands):
        left = ",".join([*operands[:i], result, *operands[i + 1 :]])
        others = [*values[:i], at.grad, *values[i + 1 :]]
        grads.append(at.op("Einsum", *others, equation=f"{left}->{term}"))
    return grads


def _check(at: Backward, operands: list[str], result: str, *, covered: bool) -> None:
    """Refuse what the formula does not hold for."""
    sizes: dict[str, int] = {}
    for i, term in enumerate(operands):
        others = {*result, *"".join(operands[:i] + operands[i + 1 :])}
        covered &= len(set(term)) == len(term) and set(term) <= others
        for axis, n in zip(term, at.shape(at.x(i)), strict=False):
            covered &= sizes.setdefault(axis, n) == n
    if not covered:
        raise NoGradientError(
            f"its equation '{at.text('equation', '')}' has an ellipsis, a diagonal, an implied "
            "result, an axis summed in one operand alone, or broadcasting"
        )
