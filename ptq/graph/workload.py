"""How much an operator computes, as far as its weight tells."""

from __future__ import annotations

from ptq.graph.passes.edit import constant
from ptq.graph.site import Sites


def products_per_value(sites: Sites) -> dict[str, float]:
    """Return how many products go into a value that each linear operator puts out, by name."""
    found = {}
    for site in sites.sites:
        weight = constant(site.weight)
        if site.rule.role != "linear" or weight is None:
            continue
        axis = site.weight_axis if site.weight_axis is not None else -1
        found[site.name] = weight.size / max(weight.shape[axis], 1)
    return found
