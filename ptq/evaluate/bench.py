"""Put the profiles of several models of one network side by side, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ptq.runtime.profile import KernelTime

#: What integer and merged kernels put before the type of the node they stand for.
_KIND = re.compile(r"^(QLinear|Fused|Q(?=Gemm))")


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of a network, as each model runs it.

    Attributes:
        name: a node that all models have in it; for what onnxruntime adds, such as a change of
            layout, the type in parentheses.
        kernels: those of each model, in the order of the models; a model may have none.
    """

    name: str
    kernels: tuple[tuple[KernelTime, ...], ...]

    @property
    def ms(self) -> tuple[float, ...]:
        """The time that each model spends in it."""
        return tuple(sum(kernel.ms for kernel in kernels) for kernels in self.kernels)


def align(profiles: Sequence[Sequence[KernelTime]]) -> tuple[Layer, ...]:
    """Return the layers of models that share names of nodes or tensors.

    Kernels are of one layer if they stand for the same node or make the same tensor. Where one
    model merges what another keeps apart, as a Conv and the Add behind it, it all is one layer.
    Kernels that are nobody's, such as a change of layout, are one layer for each type.

    Args:
        profiles: the kernels of each model, in the order in which they run.
    """
    groups = _Groups()
    for model, kernels in enumerate(profiles):
        for i, kernel in enumerate(kernels):
            groups.join((model, i), *_keys(kernel))
    members: dict[Hashable, list[list[KernelTime]]] = {}
    for model, kernels in enumerate(profiles):
        for i, kernel in enumerate(kernels):
            found = members.setdefault(groups.root((model, i)), [[] for _ in profiles])
            found[model].append(kernel)
    return tuple(Layer(_name(found), tuple(map(tuple, found))) for found in members.values())


def _keys(kernel: KernelTime) -> list[tuple[str, str]]:
    if not kernel.names:
        return [("added", kernel.op_type)]
    nodes = [("node", name) for name in kernel.names]
    return nodes + [("tensor", name) for name in kernel.tensors]


class _Groups:
    """Which things belong together, directly or through others."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def root(self, thing: Hashable) -> Hashable:
        while (parent := self._parents.setdefault(thing, thing)) != thing:
            self._parents[thing] = self._parents[parent]  # halve the way for the next one
            thing = parent
        return thing

    def join(self, *things: Hashable) -> None:
        first, *others = map(self.root, things)
        for other in others:
            self._parents[other] = first


def _name(members: Sequence[Sequence[KernelTime]]) -> str:
    kernels = [kernel for found in members for kernel in found]
    if not kernels[0].names:
        return f"({kernels[0].op_type})"
    named = [frozenset[str]().union(*(k.names for k in found)) for found in members if found]
    candidates = frozenset.intersection(*named) or named[0]
    # the model that keeps most apart, and of it the kernel that runs first: a Conv, not its Add
    [first, *_] = max(members, key=len)
    candidates = candidates & first.names or candidates
    kinds = {_KIND.sub("", k.op_type).lower() for k in kernels}

    def rank(name: str) -> tuple[bool, bool, int, str]:
        # what a kernel is still called, else what has the type of one in it: the Conv rather than
        # the normalization that it absorbed
        called = any(k.name == name or k.name.startswith(f"{name}_token_") for k in kernels)
        return (not called, not any(kind in name.lower() for kind in kinds), len(name), name)

    return min(candidates, key=rank)
