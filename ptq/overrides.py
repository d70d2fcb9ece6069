"""Which settings hold for each node and tensor of a model: the general ones, or an override's."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from ptq.calib import Solver, parse_method
from ptq.config import FULL_BITS, Override, QuantizeConfig
from ptq.errors import ConfigError
from ptq.graph.edges import edge_layers
from ptq.graph.names import Names, names_of
from ptq.graph.planning import requests, widths_read
from ptq.graph.site import Sites
from ptq.graph.types import Model
from ptq.plan.widths import common_widths
from ptq.weights import WeightQuantizer
from ptq.weights import parse_method as parse_weights

#: Why a node stays in float that an override wants there.
IN_FLOAT = "kept in float by an override"


@dataclass(frozen=True, slots=True)
class WeightSettings:
    """How the weight of one node is quantized.

    Attributes:
        bits: of its codes.
        method: the weight quantizer.
        per_channel: whether each output channel has a scale of its own.
    """

    bits: int
    method: WeightQuantizer
    per_channel: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What an override matches in a model.

    Attributes:
        override: the override.
        nodes: names of the nodes.
        tensors: names of the tensors.
    """

    override: Override
    nodes: frozenset[str]
    tensors: frozenset[str]


class Overrides:
    """The settings of every node and tensor of a prepared model.

    Attributes:
        effects: what each override matches, in their order.
        edges: the nodes of which the weights, and what they read, have more bits than the others,
            as first and last layers; empty where all have as many.
    """

    def __init__(self, model: Model, config: QuantizeConfig) -> None:
        """Match the overrides.

        Args:
            model: the prepared model.
            config: the settings.

        Raises:
            ConfigError: an override matches nothing, or two nodes want one weight differently.
        """
        self.model = model
        self.config = config
        self.effects: tuple[Effect, ...] = ()
        least = min(config.bits, config.activation_bits)
        static = config.scheme == "static" and least < config.edge_bits
        self.edges = edge_layers(model) if static else frozenset[str]()
        if not config.overrides:
            return
        names = names_of(model)
        self.effects = tuple(_effect(override, names) for override in config.overrides)
        for weight, readers in names.weights.items():
            self._require_one_kind(weight, readers)

    def kept_float(self) -> dict[str, str]:
        """Return the nodes that stay in float, with the reason."""
        return {node: IN_FLOAT for node in self._matched() if self._is_float(node)}

    def weight(self, node: str) -> WeightSettings:
        """Return how the weight of a node is quantized."""
        said, general = self._of(node), self.config
        methods = (o.weight_method for o in said if o.weight_method is not None)
        method = next(methods, None)
        edge = max(general.bits, general.edge_bits)
        usual = edge if node in self.edges else general.bits
        bits = next((o.bits for o in said if o.bits is not None), usual)
        quantizer = self._usual(bits) if method is None else parse_weights(method)
        try:
            quantizer.require_width(bits)
        except ConfigError as error:
            raise ConfigError(f"node '{node}': {error}") from error
        return WeightSettings(
            bits=bits,
            method=quantizer,
            per_channel=next((o.weights for o in said if o.weights is not None), general.weights)
            == "per-channel",
        )

    def widths(self) -> dict[str, int]:
        """Return the bits of the weights of nodes that do not have as many as the others."""
        bits = {node: self.weight(node).bits for node in self._matched()}
        return {node: width for node, width in bits.items() if width != self.config.bits}

    def held_weights(self) -> set[str]:
        """Return the weights of nodes for which an override says how many bits they have."""
        if not self.effects:
            return set()
        wanted = {n for e in self.effects if e.override.bits is not None for n in e.nodes}
        nodes = (node for node in names_of(self.model).nodes if node.name in wanted)
        return {constant for node in nodes for constant in node.constants}

    def activation_widths(self, sites: Sites) -> dict[str, int]:
        """Return the bits of quantized tensors that do not have those of the target's grid."""
        config = self.config
        if config.activation_bits == FULL_BITS:
            return {}
        read = widths_read(sites, config.activation_bits, self.edges, config.edge_bits)
        return common_widths(requests(sites), read)

    def solvers(self, sites: Sites) -> dict[str, Solver]:
        """Return the range method of the quantized tensors for which an override says it.

        What a Relu or Clip puts out that is absorbed matches with the operator before it, too.
        """
        before = {
            value.name: [v.name or "" for v in site.node.outputs]
            for site in sites.sites
            if site.absorbed is not None
            for value in site.outputs
        }
        found: dict[str, Solver] = {}
        for tensor in sites.quantized():
            names = {tensor, *before.get(tensor, ())}
            for effect in self.effects:
                method = effect.override.calib
                if method is not None and names & effect.tensors:
                    found[tensor] = parse_method(method)
        return found

    @cached_property
    def _methods(self) -> dict[int, WeightQuantizer]:
        return {}

    def _usual(self, bits: int) -> WeightQuantizer:
        """Return the range method of weights for which no override says one."""
        if bits not in self._methods:
            self._methods[bits] = self.config.weight_quantizer(bits)
        return self._methods[bits]

    def _matched(self) -> list[str]:
        """Return the nodes that some override matches."""
        return sorted(frozenset[str]().union(*(effect.nodes for effect in self.effects)))

    def _of(self, node: str) -> list[Override]:
        """Return the overrides of a node, the last first."""
        return [effect.override for effect in reversed(self.effects) if node in effect.nodes]

    def _is_float(self, node: str) -> bool:
        return next((o.float for o in self._of(node) if o.float is not None), False)

    def _require_one_kind(self, weight: str, readers: Collection[str]) -> None:
        """Refuse to quantize a weight in two ways: it is in the file once."""
        integer = [node for node in readers if not self._is_float(node)]
        for node in integer[1:]:
            if self.weight(node) != self.weight(integer[0]):
                raise ConfigError(
                    f"weight '{weight}' is read by '{integer[0]}' and '{node}', for which the "
                    "overrides want other bits, scales or ranges; let them match both, or keep "
                    "one in float"
                )


def _effect(override: Override, names: Names) -> Effect:
    """Return what an override matches.

    Raises:
        ConfigError: it matches nothing that it could change.
    """
    nodes, tensors = set[str](), set[str]()
    for node in names.nodes:
        known = (node.name, *node.outputs, *node.constants)
        fits = override.op in ("", node.op_type)
        if fits and any(_matches(name, override.match) for name in known):
            nodes.add(node.name)
            tensors.update(node.outputs)
    if not override.op:
        tensors.update(name for name in names.tensors if _matches(name, override.match))
    of_tensors = set(override.changes) == {"calib"}
    if not (tensors if of_tensors else nodes):
        raise ConfigError(
            f"override {override} matches no {'tensor' if of_tensors else 'node'}; "
            f"{_nearest(override, names)}`ptq inspect` lists the names of the nodes"
        )
    return Effect(override, frozenset(nodes), frozenset(tensors))


def _nearest(override: Override, names: Names) -> str:
    """Return a hint at the name that is most like what was given; empty if none is."""
    known = [n for node in names.nodes for n in (node.name, *node.outputs)]
    near = difflib.get_close_matches(override.match.strip("*"), known, n=1, cutoff=0.7)
    return f"did you mean '{near[0]}'? " if near else ""


def _matches(name: str, glob: str) -> bool:
    # a name can have brackets in it, which as a glob would match something else
    return name == glob or fnmatch.fnmatch(name, glob)
