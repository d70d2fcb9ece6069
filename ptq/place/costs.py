"""What every operator costs in float and in integers, read from profiles of the whole models.

A kernel alone is no measure of what it costs in a model: convolutions run in layouts that their
neighbours share, and a float Add is part of the convolution before it. So the float model and the
integer model are profiled as they are, in turn, and their kernels matched by the nodes they stand
for; only conversions between the two, of which neither model has many, are measured alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ptq.graph.site import Sites
from ptq.place.cut import Block, Boundary, cheapest_cut, cost_of
from ptq.runtime.conversions import Conversions, cost_ms
from ptq.runtime.profile import KernelTime

#: Images, whose layout an integer kernel changes.
_IMAGE_RANK = 4


@dataclass(frozen=True, slots=True)
class Region:
    """The least that can be placed: an operator with what it absorbs.

    Attributes:
        name: its node.
        members: that node and those that go with it.
        reads: the activation tensors that it reads.
        writes: the tensors that it makes.
        dequantizes: whether the integer kernel can put out floats itself.
        leads: whether a float kernel that does the work of several regions is charged to this one.
        makes: tensors by which a kernel is known where its node has another name.
    """

    name: str
    members: frozenset[str]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    dequantizes: bool = True
    leads: bool = True
    makes: frozenset[str] = frozenset()


def regions_of(sites: Sites) -> tuple[Region, ...]:
    """Return the sites as what can be placed, with the tensors between them."""
    return tuple(
        Region(
            name=site.name,
            members=frozenset(n.name or "" for n in (site.node, site.absorbed) if n is not None),
            reads=tuple(v.name or "" for v in site.activations if not v.is_initializer()),
            writes=tuple(v.name or "" for v in site.outputs),
            dequantizes=not site.rule.output,
            leads=site.rule.role == "linear",
        )
        for site in sites.sites
    )


@dataclass(frozen=True, slots=True)
class Costs:
    """Everything that a placement of one model may cost.

    Attributes:
        blocks: the regions with the costs of their kernels; what one float kernel does the work
            of is one block.
        parts: the regions of each block.
        boundaries: what conversions cost, by tensor.
        float_readers: tensors that something reads in float whatever is chosen.
        others_ms: what the kernels cost that stay in float whatever is chosen.
    """

    blocks: tuple[Block, ...]
    parts: Mapping[str, tuple[str, ...]]
    boundaries: Mapping[str, Boundary]
    float_readers: frozenset[str]
    others_ms: float

    def cut(self, factor: float = 1.0) -> frozenset[str]:
        """Return the cheapest set of integer blocks, if conversions cost so many times as much."""
        dearer = {
            name: Boundary(b.quantize_ms * factor, b.dequantize_ms * factor)
            for name, b in self.boundaries.items()
        }
        return cheapest_cut(self.blocks, dearer, self.float_readers).integer

    def predicted_ms(self, integer: frozenset[str]) -> float:
        """Return what the whole model would take with these blocks integer."""
        inside = cost_of(integer, self.blocks, self.boundaries, self.float_readers)
        return self.others_ms + inside

    def reasons(self, integer: frozenset[str]) -> dict[str, str]:
        """Return why the regions of the other blocks stay in float."""
        return {
            region: _reason(block)
            for block in self.blocks
            if block.name not in integer
            for region in self.parts[block.name]
        }

    def regions(self, integer: frozenset[str]) -> int:
        """Return how many regions these blocks are."""
        return sum(len(self.parts[name]) for name in integer)


def _reason(block: Block) -> str:
    """Say what was measured, to two digits: the times of single kernels are no more certain."""
    if block.float_ms < block.integer_ms:
        return f"float is faster here: {block.float_ms:.2g} ms against {block.integer_ms:.2g} ms"
    return "the conversions around it cost more than its integer kernel saves here"


def charge(
    regions: Sequence[Region], kernels: Iterable[KernelTime]
) -> tuple[dict[str, float], float]:
    """Return what each region's kernels cost, and what those of no region do.

    A kernel for several regions is charged to the first of them that leads.
    """
    owner = {member: region for region in regions for member in region.members}
    maker = {tensor: region for region in regions for tensor in region.makes}
    rank = {region.name: (not region.leads, i) for i, region in enumerate(regions)}
    charged = dict.fromkeys((region.name for region in regions), 0.0)
    others = 0.0
    for kernel in kernels:
        owners = {owner[n].name for n in kernel.names if n in owner}
        owners |= {maker[t].name for t in kernel.tensors if t in maker}
        if owners:
            charged[min(owners, key=rank.__getitem__)] += kernel.ms
        else:
            others += kernel.ms
    return charged, others


def merged(regions: Sequence[Region], kernels: Iterable[KernelTime]) -> tuple[Region, ...]:
    """Return the regions with those made one that share a float kernel.

    Where a float Add is part of the convolution before it, one of them alone in integers would
    cost the other its kernel: they are placed together, under the name of the first that leads.
    """
    owner = {member: i for i, region in enumerate(regions) for member in region.members}
    first = list(range(len(regions)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for kernel in kernels:
        shared = sorted({root(owner[n]) for n in kernel.names if n in owner})
        for other in shared[1:]:
            first[other] = shared[0]
    groups: dict[int, list[Region]] = {}
    for i, region in enumerate(regions):
        groups.setdefault(root(i), []).append(region)
    return tuple(_one(group) for group in groups.values())


def _one(group: Sequence[Region]) -> Region:
    leader = next((region for region in group if region.leads), group[0])
    return Region(
        name=leader.name,
        members=frozenset().union(*(region.members for region in group)),
        reads=tuple(dict.fromkeys(t for region in group for t in region.reads)),
        writes=tuple(dict.fromkeys(t for region in group for t in region.writes)),
        dequantizes=all(region.dequantizes for region in group),
        leads=leader.leads,
        makes=frozenset().union(*(region.makes for region in group)),
    )


def blocks(
    regions: Sequence[Region], float_ms: Mapping[str, float], integer_ms: Mapping[str, float]
) -> tuple[Block, ...]:
    """Return the regions with their costs."""
    return tuple(
        Block(r.name, float_ms[r.name], integer_ms[r.name], r.reads, r.writes, r.dequantizes)
        for r in regions
    )


def boundaries(
    shapes: Mapping[str, tuple[int, ...]], conversions: Conversions, inputs: frozenset[str]
) -> dict[str, Boundary]:
    """Return what it costs to convert each tensor.

    Args:
        shapes: by tensor.
        conversions: what this machine takes for them.
        inputs: the model's inputs, of which no float kernel has changed the layout.
    """
    found = {}
    for name, shape in shapes.items():
        elements = prod(shape)
        layout = 0.0
        if len(shape) == _IMAGE_RANK:
            layout = cost_ms(conversions.transpose, elements)
            if name not in inputs:
                layout += cost_ms(conversions.reorder, elements)
        found[name] = Boundary(
            cost_ms(conversions.quantize, elements) + layout,
            cost_ms(conversions.dequantize, elements) + layout,
        )
    return found
