"""Build networks with random weights whose activations stay sane, layer by layer."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

#: LayerNormalization and HardSwish are operators of their own from 17 and 14.
_OPSET, _IR_VERSION = 17, 8


@dataclass(frozen=True)
class Map:
    """A value, and what is expected of it: the moments over channels, places and inputs."""

    value: ir.Value
    channels: int
    mean: float
    variance: float


@dataclass(frozen=True)
class Activation:
    """An activation function: how it is written and computed."""

    emit: Callable[["Net", ir.Value], ir.Value]
    compute: Callable[[np.ndarray], np.ndarray]

    def moments(self, x: Map) -> tuple[float, float]:
        """Return mean and variance of the function of a normal variable like this."""
        z = np.linspace(-6, 6, 2001)
        density = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
        y = self.compute(x.mean + math.sqrt(x.variance) * z)
        mean = float(density @ y)
        return mean, float(density @ (y - mean) ** 2)


class Net:
    """A graph under construction."""

    def __init__(self, seed: int, inputs: Mapping[str, tuple[ir.DataType, tuple[int, ...]]]):
        self.rng = np.random.default_rng(seed)
        values = [
            ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
            for name, (dtype, shape) in inputs.items()
        ]
        opsets = {"": _OPSET}
        self.graph = ir.Graph(values, [], nodes=[], opset_imports=opsets, name="random-weights")
        self.inputs = {value.name: value for value in values}

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        """Append a node and return its output."""
        name = f"{op_type}_{len(self.graph)}"
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = f"{name}_out"
        self.graph.append(node)
        return node.outputs[0]

    def constant(self, array: object, dtype: type = np.float32) -> ir.Value:
        """Add an initializer."""
        name = f"constant_{len(self.graph.initializers)}"
        tensor = ir.tensor(np.asarray(array, dtype), name=name)
        value = ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape
        )
        self.graph.register_initializer(value)
        return value

    def model(self, output: ir.Value, shape: tuple[int, ...]) -> ir.Model:
        """Return the finished model."""
        output.name = "output"
        output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape(shape)
        self.graph.outputs.append(output)
        return ir.Model(self.graph, ir_version=_IR_VERSION, producer_name="ptq-benchmarks")

    # images

    def image(self) -> Map:
        return Map(self.inputs["input"], 3, 0.0, 1.0)

    def weight(self, x: Map, shape: tuple[int, ...]) -> np.ndarray:
        """Return weights that keep the variance, outputs first."""
        weight = self.rng.normal(size=shape)
        axes = tuple(range(1, len(shape)))
        if x.mean and shape[1] > 1:  # a depthwise kernel of mean 0 would find edges only
            weight -= weight.mean(axes, keepdims=True)
        return weight / math.sqrt(math.prod(shape[1:]))

    def conv(
        self, x: Map, channels: int, kernel: int = 1, stride: int = 1, gain: float = 1.0
    ) -> Map:
        """A dense convolution and batch normalization: mean 0, and ``gain`` times deviation 1."""
        return self._convolved(x, (channels, x.channels, kernel, kernel), stride, gain)

    def depthwise(self, x: Map, kernel: int, stride: int) -> Map:
        """A depthwise convolution and batch normalization."""
        return self._convolved(x, (x.channels, 1, kernel, kernel), stride)

    def _convolved(
        self, x: Map, shape: tuple[int, int, int, int], stride: int, gain: float = 1.0
    ) -> Map:
        channels, inputs, kernel, _ = shape
        weight = self.weight(x, shape)
        value = self.op(
            "Conv",
            x.value,
            self.constant(weight),
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
            group=x.channels // inputs,
        )
        # channels differ as in trained networks, though less
        scale = np.exp(self.rng.normal(scale=0.2, size=channels))
        parameters = (
            gain * scale / math.sqrt((scale**2).mean()),
            gain * self.rng.normal(scale=0.1, size=channels),
            x.mean * weight.sum((1, 2, 3)),  # the mean that is expected
            # a mean that is not as expected adds to the variance of a depthwise kernel
            np.full(channels, x.variance + (x.mean**2 if inputs == 1 else 0.0)),
        )
        value = self.op("BatchNormalization", value, *map(self.constant, parameters))
        return Map(value, channels, 0.0, gain**2)

    def act(self, x: Map, activation: Activation) -> Map:
        mean, variance = activation.moments(x)
        return replace(x, value=activation.emit(self, x.value), mean=mean, variance=variance)

    def add(self, x: Map, y: Map) -> Map:
        value = self.op("Add", x.value, y.value)
        return replace(x, value=value, mean=x.mean + y.mean, variance=x.variance + y.variance)

    def _biased(self, x: Map, channels: int) -> Map:
        """A dense convolution with a bias; weights are small, so that factors stay about a half."""
        weight = self.constant(0.5 * self.weight(x, (channels, x.channels, 1, 1)))
        bias = self.constant(self.rng.normal(scale=0.3, size=channels))
        value = self.op("Conv", x.value, weight, bias, kernel_shape=[1, 1])
        return Map(value, channels, 0.0, x.variance / 4)

    def pooled(self, x: Map) -> Map:
        value = self.op("Flatten", self.op("GlobalAveragePool", x.value), axis=1)
        return replace(x, value=value)

    def linear(self, x: Map, outputs: int) -> Map:
        """A Gemm with a transposed weight, as PyTorch exports it."""
        weight = self.constant(self.weight(x, (outputs, x.channels)))
        bias = self.constant(self.rng.normal(scale=0.05, size=outputs))
        value = self.op("Gemm", x.value, weight, bias, transB=1)
        return Map(value, outputs, 0.0, x.variance)

    def squeezed(self, x: Map) -> Map:
        """Squeeze and excitation: the means of all channels say by what each is multiplied."""
        inner = max(8, (x.channels // 4 + 4) // 8 * 8)
        if inner < 0.9 * x.channels / 4:
            inner += 8
        y = replace(x, value=self.op("GlobalAveragePool", x.value))
        y = self.act(self._biased(y, inner), RELU)
        gate = self.op("HardSigmoid", self._biased(y, x.channels).value, alpha=1 / 6)
        product = self.op("Mul", x.value, gate)
        return replace(x, value=product, mean=x.mean / 2, variance=x.variance / 4)


# -- activations ----------------------------------------------------------------------------------


def _clip(net: Net, x: ir.Value) -> ir.Value:
    return net.op("Clip", x, net.constant(0.0), net.constant(6.0))


def _decomposed_hardswish(net: Net, x: ir.Value) -> ir.Value:
    """As exporters wrote it before opset 14."""
    gate = _clip(net, net.op("Add", x, net.constant(3.0)))
    return net.op("Div", net.op("Mul", x, gate), net.constant(6.0))


def _hardswish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + 3, 0, 6) / 6


RELU = Activation(lambda net, x: net.op("Relu", x), lambda x: np.maximum(x, 0))
RELU6 = Activation(_clip, lambda x: np.clip(x, 0, 6))
HARDSWISH = Activation(lambda net, x: net.op("HardSwish", x), _hardswish)
DECOMPOSED_HARDSWISH = Activation(_decomposed_hardswish, _hardswish)
