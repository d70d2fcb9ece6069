"""Choose the layers to leave in float that spare the output most noise for the work they do.

A tensor is spared its rounding only where every layer that reads it or puts it out is in float; a
weight where its layer is. So what is chosen tends to be a stretch of neighbours, not single layers:
a closure problem (Picard, "Maximal closure of a graph", Management Science 22, 1976), here with a
limit on the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptq.numerics.arrays import F64

#: How far from the best an answer may be, and how many nodes of the search tree are looked at: no
#: time, or the same data could give two answers.
_GAP, _NODES = 0.02, 20_000

#: Of all noise, a part of less than this is none.
_NEGLIGIBLE = 1e-6


def least_noise(
    noise: F64, touching: Sequence[Sequence[int]], work: F64, most: float
) -> tuple[int, ...]:
    """Return the layers that leave least noise when they are in float, within so much work.

    Args:
        noise: of each part (a tensor or a weight), ``(parts,)``, 0 or more; a part is spared where
            no layer rounds it.
        touching: by part, the layers that round it, one or more.
        work: of each layer, ``(layers,)``, more than 0.
        most: limit on the work of the layers in float, 0 or more.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    total = float(noise.sum())
    if not total:
        return ()
    noise, touching = _that_matter(noise, touching)
    parts, layers = len(noise), len(work)
    # variables are the layers in float, and the parts that are spared, each of which is no more
    # than any layer that rounds it; parts need not be whole, for layers that are make them so
    pairs = [(part, layer) for part, those in enumerate(touching) for layer in those]
    rows = np.arange(len(pairs))
    part_of, layer_of = np.array(pairs).T
    ones = np.ones(len(pairs))
    below = csr_array(
        (np.r_[-ones, ones], (np.r_[rows, rows], np.r_[layer_of, layers + part_of])),
        shape=(len(pairs), layers + parts),
    )
    spent = np.r_[work / work.sum(), np.zeros(parts)]
    found = milp(
        np.r_[np.zeros(layers), -noise / total],
        integrality=np.r_[np.ones(layers), np.zeros(parts)],
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(below, -np.inf, 0.0),
            LinearConstraint(spent, -np.inf, most / work.sum()),
        ],
        options={"mip_rel_gap": _GAP, "node_limit": _NODES},
    )
    if found.x is None:
        return ()
    return tuple(int(i) for i in np.flatnonzero(found.x[:layers] > 0.5))


def _that_matter(noise: F64, touching: Sequence[Sequence[int]]) -> tuple[F64, list[Sequence[int]]]:
    """Leave out parts that no sum feels: the solver warns of coefficients that small."""
    kept = np.flatnonzero(noise > _NEGLIGIBLE * noise.sum())
    return noise[kept], [touching[i] for i in kept.tolist()]
