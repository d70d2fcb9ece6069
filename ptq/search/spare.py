"""Choose the layers to leave in float that spare the output most noise for the work they do.

A tensor is spared its rounding only where every layer that reads it or puts it out is in float; a
weight where its layer is. So what is chosen tends to be a stretch of neighbours, not single layers:
a closure problem (Picard, "Maximal closure of a graph", Management Science 22, 1976), here with a
limit on the noise that remains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptq.numerics.arrays import F64

#: How far from the least cost an answer may be, and how long to look for it.
_GAP, _SECONDS = 0.02, 20.0


def least_work(
    noise: F64, touching: Sequence[Sequence[int]], work: F64, limit: float
) -> tuple[int, ...]:
    """Return the layers of least work that must be in float for the noise to stay within a limit.

    Args:
        noise: of each part (a tensor or a weight), ``(parts,)``, 0 or more.
        touching: by part, the layers that round it.
        work: of each layer, ``(layers,)``, more than 0.
        limit: on the sum of the noise of the parts that some layer still rounds, 0 or more.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    parts, layers = len(noise), len(work)
    total = float(noise.sum())
    if total <= limit:
        return ()
    # x: layers in float; y: parts that are spared, each no more than any layer that rounds it
    pairs = [(part, layer) for part, those in enumerate(touching) for layer in those]
    rows = np.arange(len(pairs))
    part_of, layer_of = np.array(pairs).T
    ones = np.ones(len(pairs))
    below = csr_array(
        (np.r_[-ones, ones], (np.r_[rows, rows], np.r_[layer_of, layers + part_of])),
        shape=(len(pairs), layers + parts),
    )
    spared = np.r_[np.zeros(layers), noise / total]
    found = milp(
        np.r_[work / work.sum(), np.zeros(parts)],
        integrality=np.r_[np.ones(layers), np.zeros(parts)],
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(below, -np.inf, 0.0),
            LinearConstraint(spared, 1.0 - limit / total, np.inf),
        ],
        options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
    )
    if found.x is None:
        return tuple(range(layers))
    return tuple(int(i) for i in np.flatnonzero(found.x[:layers] > 0.5))
