"""Which candidates pay: operators without weights do only between integer operators."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.site import Site

#: What may be the last step but one of an activation function that onnxruntime fuses, such as the
#: product before the half of a Gelu: the whole is faster than the rest of it.
_FUSED_BEFORE = frozenset({"Add", "Div", "Mul", "Sub"})


def between_integers(candidates: dict[int, Site]) -> tuple[dict[int, Site], dict[str, str]]:
    """Return the candidates that become sites, and by name the reason why others do not.

    Of elementwise, move and rescale candidates, those between integer operators are kept. That is
    the largest such set: the graph has no cycles, so that every member has a linear operator
    before and after it. A rescale of something in float is kept, too, if nobody but sites reads
    it: it needs no kernel.

    Args:
        candidates: by the identity of their node, in graph order.
    """
    region = _Region(candidates)
    region.shrink()
    region.take_free_rescales()
    return region.kept, region.why


class _Region:
    """The candidates that are left, and who reads whom."""

    def __init__(self, candidates: dict[int, Site]) -> None:
        self.candidates = candidates
        self.kept = dict(candidates)
        self.why: dict[str, str] = {}
        # a table puts out floats
        made = [s for s in candidates.values() if s.rule.role != "table"]
        self.producer = {id(v): s for s in made for v in s.outputs}
        self.readers: dict[int, list[Site]] = {}
        for site in candidates.values():
            for value in site.activations:
                self.readers.setdefault(id(value), []).append(site)

    def shrink(self) -> None:
        """Drop what is not between integer operators, until nothing more has to go."""
        changed = True
        while changed:
            changed = False
            for key, site in list(self.kept.items()):
                if site.rule.role in ("linear", "table"):
                    continue
                if why := self._why_not(site):
                    del self.kept[key]
                    self.why[site.name] = why
                    changed = True

    def take_free_rescales(self) -> None:
        """Take the rescales back of which every reader is a site, last ones first."""
        taken = {
            key: site
            for key, site in reversed(self.candidates.items())
            if site.rule.role == "rescale" and key not in self.kept and self._take(key, site)
        }
        # in graph order again
        if taken:
            self.kept = {k: s for k, s in self.candidates.items() if k in self.kept}

    def _take(self, key: int, site: Site) -> bool:
        [output] = site.outputs
        before = site.activations[0].producer()
        known = self.candidates.get(id(before))
        rescaled = known is not None and known.rule.role == "rescale"
        if before is not None and before.op_type in _FUSED_BEFORE and not rescaled:
            return False
        uses = list(output.uses())
        if output.is_graph_output() or not uses:
            return False
        if not all(self._reads_codes(node, index) for node, index in uses):
            return False
        self.kept[key] = site
        self.why.pop(site.name, None)
        return True

    def _reads_codes(self, node: ir.Node, index: int) -> bool:
        site = self.kept.get(id(node))
        return site is not None and any(v is node.inputs[index] for v in site.activations)

    def _is_kept(self, site: Site | None) -> bool:
        return site is not None and id(site.node) in self.kept

    def _why_not(self, site: Site) -> str:
        # what a fusing kernel is merged into is before it, too
        operands = site.node.inputs if site.rule.fuses else site.activations
        fed = [v for v in operands if v is not None and self._is_kept(self.producer.get(id(v)))]
        if not fed:
            return "no integer operator before it"
        if not any(self._is_kept(r) for v in site.outputs for r in self.readers.get(id(v), ())):
            return "no integer operator after it"
        after = site.rule.after
        if after and not any(self._computed_by(v) in after for v in fed):
            return f"the integer kernel is slow unless it follows {' or '.join(after)}"
        return ""

    def _computed_by(self, value: ir.Value) -> str:
        """Return the operator whose kernel wrote the codes: a rescale has none."""
        site = self.producer[id(value)]
        while site.rule.role == "rescale" and id(site.activations[0]) in self.producer:
            site = self.producer[id(site.activations[0])]
        return site.node.op_type
