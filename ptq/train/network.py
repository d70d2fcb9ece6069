"""Put trained quantizers into a network, where an integer model quantizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from ptq.errors import UnsupportedError
from ptq.graph.biases import bias_slots, place_of_bias
from ptq.graph.clip_codes import params_of
from ptq.graph.passes.edit import constant, input_at
from ptq.graph.site import Site, Sites, name_of
from ptq.numerics.affine import QTensor, dequantize, quantize
from ptq.numerics.qtype import QType
from ptq.plan import Decision, Plan
from ptq.train.estimators import functions
from ptq.train.fakequant.base import (
    ActivationStart,
    Faked,
    Parameter,
    QatMethod,
    WeightStart,
    faked_bias,
    fixed_activation,
    fixed_weight,
)
from ptq.train.phases import Widths
from ptq.train.straight_through import DOMAIN
from ptq.train.tape import Tape

#: How many steps of 4 bits there are on either side of zero, and how much faster fewer bits learn.
_STEPS_OF_4, _MOST_HASTE = 7.0, 3.0

#: Quantizes a weight: its reader, values, the axis of its output channels.
StartWeight = Callable[[Site, np.ndarray], QTensor]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A parameter in the network.

    Attributes:
        parameter: with the name of the input of the network that it is.
        site: the tensor or the node that it belongs to.
    """

    parameter: Parameter
    site: str


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network with trained quantizers; the parameters are inputs of its graph, after the data.

    Attributes:
        model: the graph. The quantizers are functions of the model.
        data: names of the inputs that are data.
        parameters: all parameters, in the order of the inputs.
        activations: what quantizing makes of each activation that has a scale of its own, by name.
        weights: likewise of weights.
        starts: the weights as they were, by name.
        biases: the parameter that is the bias of a node, by name of the node.
        states: what the states become, by name of the parameter.
    """

    model: ir.Model
    data: tuple[str, ...]
    parameters: tuple[Placed, ...]
    activations: Mapping[str, Faked]
    weights: Mapping[str, Faked]
    starts: Mapping[str, WeightStart]
    biases: Mapping[str, str]
    states: Mapping[str, ir.Value]


def with_quantizers(  # noqa: PLR0913 - a network, and how it is quantized
    model: ir.Model,
    sites: Sites,
    plan: Plan,
    method: QatMethod,
    start_weight: StartWeight,
    widths: Widths,
    latent: Mapping[str, np.ndarray] | None = None,
) -> Network:
    """Return a float network in which every tensor that the plan quantizes is quantized.

    Args:
        model: the prepared float network that the sites were found in; it is changed.
        sites: what becomes integer.
        plan: scales to start from.
        method: the trained quantizer.
        start_weight: the codes of weights to start from, symmetric about 0.
        widths: what is trained by the method. Wider tensors stay quantized as they are.
        latent: float weights to start from in place of the network's, by name.

    Raises:
        UnsupportedError: there is nothing to train.
    """
    building = _Building(model, sites, plan, method, widths, latent or {})
    for value in sites.quantized().values():
        building.activation(value)
    for site in sites.sites:
        if site.rule.role == "linear" and site.weight is not None:
            building.weight(site, start_weight)
    for slot in bias_slots(sites):
        if not slot.missing:
            building.bias(slot.node)
    return building.network()


@dataclass(slots=True)
class _Building:
    """A network while quantizers are put into it."""

    model: ir.Model
    sites: Sites
    plan: Plan
    method: QatMethod
    widths: Widths
    latent: Mapping[str, np.ndarray]
    placed: list[Placed] = field(default_factory=list)
    activations: dict[str, Faked] = field(default_factory=dict)
    weights: dict[str, Faked] = field(default_factory=dict)
    starts: dict[str, WeightStart] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    states: dict[str, ir.Value] = field(default_factory=dict)
    scales: dict[str, ir.Value] = field(default_factory=dict)
    inputs: dict[str, ir.Value] = field(default_factory=dict)
    functions: dict[tuple[str, bytes], ir.Function] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    tape: Tape = field(init=False)
    producers: dict[int, Site] = field(init=False)
    readers: dict[int, list[Site]] = field(init=False)
    names: dict[int, str] = field(init=False)
    nodes: dict[str, Site] = field(init=False)

    def __post_init__(self) -> None:
        self.data = tuple(name_of(v) for v in self.model.graph.inputs if not v.is_initializer())
        self.tape = Tape(self.model.graph, "ptq/")
        self.producers = {id(v): s for s in self.sites.sites if s.requantize for v in s.outputs}
        self.readers = {}
        for site in self.sites.sites:
            for value in site.activations:
                self.readers.setdefault(id(value), []).append(site)
        # by identity: names change while values are replaced
        self.names = {id(v): n for n, v in self.sites.quantized().items()}
        self.nodes = {s.name: s for s in self.sites.sites}

    def activation(self, value: ir.Value) -> None:
        """Quantize one activation for all that read its codes."""
        name = self.names[id(value)]
        decision = self.plan.tensors[name]
        if value.is_initializer():
            self._constant(value, decision)
            return
        source = _source_of(name, self.plan)
        if source != name:
            by = np.float32(decision.scale) / np.float32(self.plan.tensors[source].scale)
            scale = self.scales[source]
            self.scales[name] = scale if by == 1.0 else self.tape.op("Mul", scale, np.asarray(by))
            return
        start = ActivationStart(
            name, QType.parse(decision.qtype), decision.scale, decision.zero_point
        )
        trained = start.qtype.bits <= self.widths.activations
        parameters = self.method.activation_parameters(start) if trained else ()
        make = self.method.activation if trained else _Fixed.activation
        readers = self._readers(value)
        faked = self._call(
            f"{self._method(trained)}_activation",
            value,
            self._inputs(name, parameters, start.qtype.bits),
            lambda tape, x, p: make(tape, x, p, start),
        )
        self.activations[name], self.scales[name] = faked, faked.scale
        for node, index in readers:
            node.replace_input_with(index, faked.value)
        for index, output in enumerate(self.model.graph.outputs):
            if output is value and id(value) in self.producers:
                value.name, faked.value.name = f"{name}::float", name
                faked.value.shape, faked.value.type = value.shape, value.type
                self.model.graph.outputs[index] = faked.value

    def weight(self, site: Site, start_weight: StartWeight) -> None:
        """Make the weight of a layer a parameter, and quantize it."""
        weight, index = site.weight, site.rule.weight
        assert weight is not None and index is not None
        name = name_of(weight)
        if name not in self.weights:
            array = self.latent.get(name, constant(weight))
            assert array is not None
            start = WeightStart(name, array, start_weight(site, array), site.weight_axis)
            trained = start.qtype.bits <= self.widths.weights
            rate = _size(array) * _haste(start.qtype.bits)
            parameter = Parameter(name, array, "weight", rate=rate)
            parameters = self.method.weight_parameters(start) if trained else ()
            make = self.method.weight if trained else _Fixed.weight
            self.starts[name] = start
            self.weights[name] = self._call(
                f"{self._method(trained)}_weight",
                self._input(parameter, site.name),
                self._inputs(name, parameters, start.qtype.bits),
                lambda tape, w, p: make(tape, w, p, start),
            )
        site.node.replace_input_with(index, self.weights[name].value)

    def bias(self, node: str) -> None:
        """Make the bias of a layer a parameter, rounded as the kernel rounds it."""
        site = self.nodes[node]
        reader, index = place_of_bias(site.node)
        given = input_at(reader, index)
        array = constant(given)
        if given is None or array is None or id(given) in self.names:
            return  # it is an activation of the integer model, and stays
        name = name_of(given)
        value = self.inputs.get(name)
        if value is None:
            weight = self.starts.get(name_of(site.weight)) if site.weight is not None else None
            haste = 1.0 if weight is None else _haste(weight.qtype.bits)
            value = self._input(Parameter(name, array, "bias", rate=_size(array) * haste), node)
        self.biases[node] = name
        if site.rule.integer_bias and reader is site.node and site.bias is not None:
            scale = self.weights[name_of(site.weight)].scale  # type: ignore[arg-type]
            flat = self.tape.op("Reshape", scale, [-1])
            read = self.scales[self.names[id(site.activations[0])]]
            value = self._call(
                "integer_bias",
                value,
                {"input_scale": read, "weight_scale": flat},
                lambda tape, b, p: Faked(
                    faked_bias(tape, b, p["input_scale"], p["weight_scale"]), p["input_scale"]
                ),
            ).value
        reader.replace_input_with(index, value)

    def network(self) -> Network:
        """Return the network, in order."""
        if not any(p.parameter.role == "weight" for p in self.placed):
            raise UnsupportedError("no layer becomes integer whose weight could be trained")
        graph = self.model.graph
        graph.sort()
        for function in (*functions(), *self.functions.values()):
            self.model.functions[function.identifier()] = function
        self.model.opset_imports[DOMAIN] = 1
        for name in self.inputs:
            graph.initializers.pop(name, None)
        graph.inputs.extend(self.inputs.values())
        return Network(
            self.model, self.data, tuple(self.placed), self.activations, self.weights,
            self.starts, self.biases, self.states,
        )  # fmt: skip

    def _method(self, trained: bool) -> str:
        name = str(self.method.__struct_config__.tag) if trained else "fixed"
        return name.replace("-", "_")

    def _constant(self, value: ir.Value, decision: Decision) -> None:
        """Let sites read what the codes of a constant stand for."""
        array = constant(value)
        assert array is not None
        params = params_of(decision)
        seen = self.tape.constant(dequantize(quantize(array, params), params))
        for node, index in self._readers(value):
            node.replace_input_with(index, seen)

    def _readers(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Return what reads the quantized value: all, or sites only if floats computed it."""
        if id(value) in self.producers:
            return list(value.uses())
        integer = {id(s.node) for s in self.readers.get(id(value), ())}
        return [(node, i) for node, i in value.uses() if id(node) in integer]

    def _inputs(self, name: str, parameters: Sequence[Parameter], bits: int) -> dict[str, ir.Value]:
        return {
            p.name: self._input(
                replace(p, name=f"{name}::{p.name}", rate=p.rate * _haste(bits)), name
            )
            for p in parameters
        }

    def _input(self, parameter: Parameter, site: str) -> ir.Value:
        array = np.asarray(parameter.start, np.float32)
        value = ir.Value(
            name=parameter.name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(array.shape),
        )
        self.inputs[parameter.name] = value
        self.placed.append(Placed(parameter, site))
        return value

    def _call(
        self,
        name: str,
        x: ir.Value,
        p: Mapping[str, ir.Value],
        make: Callable[[Tape, ir.Value, Mapping[str, ir.Value]], Faked],
    ) -> Faked:
        """Append a call of a function, of which the body is made here."""
        inner = {n: ir.Value(name=n) for n in ("x", *p)}
        body = ir.Graph(
            list(inner.values()), [], nodes=[], opset_imports={"": 21, DOMAIN: 1}, name=name
        )
        tape = Tape(body, "", body=True)
        found = make(tape, inner["x"], {n: inner[n] for n in p})
        extra = {n: v for n in ("zero_point", "encode") if (v := getattr(found, n)) is not None}
        outputs = {"value": found.value, "scale": found.scale, **extra, **found.states}
        for key, value in outputs.items():
            # of its own node, and named: a body may put out neither an input nor a value twice
            outputs[key] = tape.op("Identity", value)
        body.outputs.extend(outputs.values())
        function = self._function(name, body)
        made = dict(zip(outputs, self.tape.ops(
            function.name, x, *p.values(), outputs=len(outputs), domain=DOMAIN
        ), strict=True))  # fmt: skip
        for state in found.states:
            self.states[name_of(p[state])] = made[state]
        return Faked(made["value"], made["scale"], made.get("zero_point"), made.get("encode"))

    def _function(self, name: str, body: ir.Graph) -> ir.Function:
        """Return a function with this body, the one there is if there is one."""
        function = ir.Function(DOMAIN, name, graph=body, attributes=[])
        content = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
        known = self.functions.setdefault((name, content), function)
        if known is function:
            function.name = f"{name}_{len(self.functions)}"
        return known


class _Fixed:
    """What quantizes tensors that the method leaves as they are."""

    @staticmethod
    def activation(
        tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        return fixed_activation(tape, x, start)

    @staticmethod
    def weight(tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart) -> Faked:
        return fixed_weight(tape, w, start)


def _haste(bits: int) -> float:
    """Return how fast to learn for a grid of so many bits, beside one of 4.

    In proportion to the step, which is what there is to make up for: at the rate of 4 bits, weights
    of 8 are moved by half a step each time, and EfficientNet-Lite0 loses 5 dB.
    """
    return min(_STEPS_OF_4 / (2 ** (bits - 1) - 1), _MOST_HASTE) if bits > 1 else _MOST_HASTE


def _size(array: np.ndarray) -> float:
    """Return the root mean square of an array: it learns in proportion; 1 where there is nothing.

    Optimizers like Adam move every number by about the learning rate in a step. Weights of 0.03, as
    transformers have them, would be gone before weights of 0.3 have begun to learn.
    """
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) or 1.0


def _source_of(name: str, plan: Plan) -> str:
    """Return the tensor whose codes a tensor has; itself, if it has its own."""
    decision = plan.tensors[name]
    source = plan.tensors.get(decision.observed)
    if source is None or source.zero_point != decision.zero_point:
        return name
    return decision.observed
