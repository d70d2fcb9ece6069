"""Find the sites: the operators that can become integer kernels, and why the others cannot.

Roles (see `ptq.targets`): a ``linear`` operator with a constant weight is a site by itself;
``elementwise`` and ``move`` operators become sites only between sites, because a lone one pays
for a QuantizeLinear and a DequantizeLinear and gains nothing; a ``rescale`` needs no kernel.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from ptq.errors import ConfigError
from ptq.graph.candidates import Examiner
from ptq.graph.planning import plan_nodes, requests
from ptq.graph.regions import between_integers
from ptq.graph.site import Site, Sites, clip_range, name_of
from ptq.graph.tables import read_in_float
from ptq.targets import Target

__all__ = ["Site", "Sites", "clip_range", "find_sites", "plan_nodes", "requests"]


def find_sites(
    model: ir.Model,
    target: Target,
    *,
    op_types: Iterable[str] = (),
    exclude: Sequence[str] = (),
    keep_float: Mapping[str, str] | None = None,
    dyadic: bool = False,
) -> Sites:
    """Return the sites of the main graph.

    Args:
        model: a normalized model (`ptq.graph.normalize`).
        target: what the backend runs.
        op_types: if any are given, the only operator types that may become integer.
        exclude: globs over node names; matching nodes stay in float.
        keep_float: further nodes that stay in float, with the reason.
        dyadic: whether scales will be powers of two; then only such factors become part of one.

    Raises:
        ConfigError: an operator type is not one that the target runs, or a glob matches no node.
    """
    wanted = frozenset(op_types)
    if unknown := sorted(wanted - target.ops.keys()):
        raise ConfigError(
            f"operator type '{unknown[0]}' has no integer kernel on target '{target.name}'; "
            f"choose from: {', '.join(sorted(target.ops))}"
        )
    nodes = list(model.graph)
    kept = {**(keep_float or {}), **_excluded(nodes, exclude)}
    examiner = Examiner(model.graph, target, wanted, kept, dyadic=dyadic)
    why: dict[str, str] = {}
    candidates: dict[int, Site] = {}
    for node in nodes:
        found = examiner.examine(node)
        if isinstance(found, Site):
            candidates[id(node)] = found
        else:
            why[node.name or ""] = found
    chosen, dropped = between_integers(candidates)
    why.update(dropped)
    for key, site in candidates.items():
        if site.rule.role == "table" and read_in_float(site, chosen):
            del chosen[key]
            why[site.name] = "the table is read in float, too"
    sites = _settled(chosen)
    for site in sites:
        if site.absorbed is not None:
            why.pop(site.absorbed.name or "", None)
    return Sites(sites, _in_order(why, nodes), _moved(candidates, chosen))


def _excluded(nodes: Sequence[ir.Node], globs: Sequence[str]) -> dict[str, str]:
    """Return the nodes whose names match, with the reason why they stay in float."""
    names = [n.name or "" for n in nodes]
    found: dict[str, str] = {}
    for glob in globs:
        matched = fnmatch.filter(names, glob)
        if not matched:
            raise ConfigError(
                f"--exclude '{glob}' matches no node; `ptq inspect` lists the node names"
            )
        found.update(dict.fromkeys(matched, "excluded by --exclude"))
    return found


def _settled(chosen: Mapping[int, Site]) -> tuple[Site, ...]:
    """Return the sites; where a kernel need not requantize and no site asks for it, it does not."""
    wanted = {id(v) for s in chosen.values() for v in s.activations}
    return tuple(
        site
        if site.rule.role == "table"
        or site.rule.output
        or any(id(v) in wanted for v in site.outputs)
        else _without_output(site)
        for site in chosen.values()
    )


def _without_output(site: Site) -> Site:
    """Return the site with a float output; then nothing is absorbed either."""
    return replace(site, absorbed=None, outputs=tuple(site.node.outputs), requantize=False)


def _moved(candidates: Mapping[int, Site], chosen: Mapping[int, Site]) -> dict[str, str]:
    return {
        name_of(value): name_of(site.activations[0])
        for key, site in candidates.items()
        if site.rule.role == "move" and key not in chosen
        for value in site.outputs
    }


def _in_order(why: Mapping[str, str], nodes: Sequence[ir.Node]) -> dict[str, str]:
    return {n.name or "": why[n.name or ""] for n in nodes if (n.name or "") in why}
