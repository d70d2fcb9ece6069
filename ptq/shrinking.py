"""Choose the ranges of weights by the error of what their layers put out (SeqMSE).

The error of an output channel is ``(w - Q(w))^T H (w - Q(w))`` with ``H`` the sum of ``x x^T`` over
its inputs, so that a candidate costs no inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ptq.graph.passes.edit import constant
from ptq.graph.site import Site
from ptq.graph.site_weights import unsaturated
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.gptq import output_errors
from ptq.rounding import Halves, problem
from ptq.weights.base import WeightQuantizer
from ptq.weights.seqmse import SeqMseQuantizer, ShrunkQuantizer

#: How a weight is quantized by a method of its site: its values, and the method.
QuantizeBy = Callable[[Site, AnyArray, WeightQuantizer], QTensor]


def best_factors(
    site: Site, written: QTensor, halves: Halves, method: SeqMseQuantizer, quantize: QuantizeBy
) -> F64:
    """Return by what the range of each channel is multiplied; one number per tensor.

    Candidates are judged in the codes that are written, which keep clear of what saturates.

    Args:
        site: the layer.
        written: its weight as it is written now.
        halves: the sums of products of its inputs.
        method: says which factors.
        quantize: quantizes its weight.
    """
    array = constant(site.weight)
    assert array is not None
    gram = halves[0].total + halves[1].total
    tried = method.factors()
    losses = []
    for factor in tried:
        tensor = unsaturated(site, array, quantize(site, array, ShrunkQuantizer(factors=factor)))
        found = problem(site, tensor)
        losses.append(output_errors(found.w, found.nearest, found.grid, gram).reshape(-1))
    table = np.array(losses)
    if written.qparams.axis is None:
        table = table.sum(axis=1, keepdims=True)
    # of equals the first, which is the widest
    return np.asarray(tried[np.argmin(table, axis=0)])


def shrunk(method: WeightQuantizer, factors: Mapping[str, F64], weight: str) -> WeightQuantizer:
    """Return the method with which a weight is quantized, once its factors are known."""
    if isinstance(method, SeqMseQuantizer) and weight in factors:
        return ShrunkQuantizer(factors=factors[weight])
    return method
