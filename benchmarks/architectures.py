"""Well-known architectures with random weights, for latency: python architectures.py NAME -o FILE.

The structure is the real one, as exporters write it, with batch normalization unfolded. The weights
are seeded, so that the same file comes out each time. What a network with random weights answers
means nothing, but its activations must be sane, or its scales would not be: weights keep the
variance (He et al., ICCV 2015), and have a mean of zero over what a dense layer adds up (Brock et
al., ICLR 2021). Else the mean that every ReLU leaves would grow, and drown all differences.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from nets import DECOMPOSED_HARDSWISH, HARDSWISH, RELU, RELU6, Activation, Map, Net

#: Calibration and evaluation never share a sample.
_CALIB_SEED, _EVAL_SEED = 1, 2

_PIXELS, _CLASSES = 224, 1000
_TOKENS, _WIDTH, _HEADS, _LAYERS, _VOCABULARY, _MASKED = 128, 384, 12, 6, 30522, -10000.0

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Architecture:
    """A network with random weights, and what it is fed.

    Attributes:
        name: what it is called.
        build: makes the model.
        feed: makes one input.
    """

    name: str
    build: Callable[[], ir.Model]
    feed: Callable[[np.random.Generator], Feed]

    def save(self, path: Path) -> None:
        """Write the model."""
        ir.save(self.build(), path)

    def calib(self, count: int) -> Iterator[Feed]:
        """Yield calibration samples."""
        return self._feeds(_CALIB_SEED, count)

    def held_out(self, count: int) -> Iterator[Feed]:
        """Yield other samples, to measure accuracy on."""
        return self._feeds(_EVAL_SEED, count)

    def _feeds(self, seed: int, count: int) -> Iterator[Feed]:
        return (self.feed(np.random.default_rng([seed, i])) for i in range(count))


# -- what they are fed ----------------------------------------------------------------------------


def image(rng: np.random.Generator) -> Feed:
    """Return a smooth random field in three channels, like a normalized photograph.

    Every octave adds half the amplitude of the one before, as in natural images, whose spectrum
    falls with the frequency (Field, JOSA A 1987).
    """
    pixels = np.zeros((3, _PIXELS, _PIXELS))
    for octave in range(1, 8):
        size = 2**octave
        grey = rng.normal(size=(1, size, size))
        coloured = rng.normal(size=(3, size, size))
        stretch = _interpolation(size, _PIXELS)
        pixels += stretch @ (grey + 0.5 * coloured) @ stretch.T / size
    pixels *= rng.uniform(0.5, 1.5) / pixels.std()
    pixels += rng.normal(scale=0.3, size=(3, 1, 1)) - pixels.mean()
    return {"input": np.clip(pixels, -2.2, 2.7)[None].astype(np.float32)}


def tokens(rng: np.random.Generator) -> Feed:
    """Return a text of up to 128 tokens, which are as unequally frequent as words are."""
    length = int(rng.integers(_TOKENS // 4, _TOKENS + 1))
    ids = np.zeros((1, _TOKENS), np.int64)
    # log-uniform: the frequency falls with the rank (Zipf)
    ids[0, :length] = np.exp(rng.uniform(0, np.log(_VOCABULARY - 1), length)).astype(np.int64)
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(_TOKENS) < length).astype(np.int64)[None],
        "token_type_ids": np.zeros_like(ids),
    }


def _interpolation(few: int, many: int) -> np.ndarray:
    """Return the matrix that stretches a line linearly, of shape ``(many, few)``."""
    at, knots = np.linspace(0, few - 1, many), np.arange(few)
    return np.maximum(0, 1 - np.abs(at[:, None] - knots))


# -- networks for images --------------------------------------------------------------------------


#: What a block adds is small beside its input, or errors would grow with the depth, beyond what
#: trained networks show (Goyal et al., 2017, begin with nothing at all: section 5.1).
_BRANCH = 0.3


def _image_net(seed: int) -> Net:
    return Net(seed, {"input": (ir.DataType.FLOAT, (1, 3, _PIXELS, _PIXELS))})


def _classified(net: Net, features: Map) -> ir.Model:
    return net.model(net.linear(features, _CLASSES).value, (1, _CLASSES))


def resnet(blocks: tuple[int, ...], *, bottleneck: bool) -> ir.Model:
    """He et al., CVPR 2016, with the stride in the 3x3 convolution, as in torchvision."""
    net = _image_net(1)
    x = net.act(net.conv(net.image(), 64, 7, 2), RELU)
    pool = net.op("MaxPool", x.value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    # the largest of nine neighbours, which are nearly alike where the image is smooth
    x = replace(x, value=pool)
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for i in range(count):
            stride = 2 if stage and not i else 1
            if bottleneck:
                y = net.act(net.conv(x, width), RELU)
                y = net.act(net.conv(y, width, 3, stride), RELU)
                y = net.conv(y, width * 4, gain=_BRANCH)
            else:
                y = net.act(net.conv(x, width, 3, stride), RELU)
                y = net.conv(y, width, 3, gain=_BRANCH)
            same = x.channels == y.channels and stride == 1
            x = net.act(net.add(y, x if same else net.conv(x, y.channels, 1, stride)), RELU)
    return _classified(net, net.pooled(x))


#: Expansion, channels, how often, stride of the first: Sandler et al., CVPR 2018, table 2.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2() -> ir.Model:
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018."""
    net = _image_net(2)
    x = net.act(net.conv(net.image(), 32, 3, 2), RELU6)
    for expansion, channels, count, first in _MOBILENET_V2:
        for i in range(count):
            stride = first if i == 0 else 1
            y = x if expansion == 1 else net.act(net.conv(x, x.channels * expansion), RELU6)
            y = net.act(net.depthwise(y, 3, stride), RELU6)
            y = net.conv(y, channels, gain=_BRANCH)
            x = net.add(x, y) if stride == 1 and x.channels == channels else y
    x = net.act(net.conv(x, 1280), RELU6)
    return _classified(net, net.pooled(x))


#: Kernel, expanded channels, channels, squeezes, HardSwish, stride: Howard et al., table 1.
_MOBILENET_V3 = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def mobilenet_v3_large(hardswish: Activation) -> ir.Model:
    """Howard et al., "Searching for MobileNetV3", ICCV 2019."""
    net = _image_net(3)
    x = net.act(net.conv(net.image(), 16, 3, 2), hardswish)
    for kernel, expanded, channels, squeezes, swish, stride in _MOBILENET_V3:
        act = hardswish if swish else RELU
        y = x if expanded == x.channels else net.act(net.conv(x, expanded), act)
        y = net.act(net.depthwise(y, kernel, stride), act)
        y = net.conv(net.squeezed(y) if squeezes else y, channels, gain=_BRANCH)
        x = net.add(x, y) if stride == 1 and x.channels == channels else y
    x = net.act(net.conv(x, 960), hardswish)
    return _classified(net, net.act(net.linear(net.pooled(x), 1280), hardswish))


# -- a network for text ---------------------------------------------------------------------------


def bert_6x384() -> ir.Model:
    """An encoder like MiniLM's: Devlin et al., NAACL 2019, with 6 layers of width 384."""
    text = (ir.DataType.INT64, (1, _TOKENS))
    net = Net(4, dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), text))
    words, types, places = (
        net.constant(net.rng.normal(scale=scale, size=(rows, _WIDTH)))
        for rows, scale in ((_VOCABULARY, 1.0), (2, 0.2), (_TOKENS, 0.2))
    )
    x = net.op("Gather", words, net.inputs["input_ids"], axis=0)
    x = net.op("Add", x, net.op("Gather", types, net.inputs["token_type_ids"], axis=0))
    x = _layer_norm(net, net.op("Add", x, places))
    axes = net.constant([1, 2], np.int64)
    mask = net.op("Unsqueeze", net.inputs["attention_mask"], axes)
    mask = net.op("Cast", mask, to=ir.DataType.FLOAT)
    mask = net.op("Mul", net.op("Sub", net.constant(1.0), mask), net.constant(_MASKED))
    for _ in range(_LAYERS):
        x = _layer_norm(net, net.op("Add", _attention(net, x, mask), x))
        hidden = _gelu(net, _dense(net, x, _WIDTH, 4 * _WIDTH))
        x = _layer_norm(net, net.op("Add", _dense(net, hidden, 4 * _WIDTH, _WIDTH), x))
    return net.model(x, (1, _TOKENS, _WIDTH))


def _dense(net: Net, x: ir.Value, inputs: int, outputs: int, gain: float = 1.0) -> ir.Value:
    weight = net.constant(net.rng.normal(size=(inputs, outputs)) * gain / math.sqrt(inputs))
    bias = net.constant(net.rng.normal(scale=0.1, size=outputs))
    return net.op("Add", net.op("MatMul", x, weight), bias)


def _layer_norm(net: Net, x: ir.Value) -> ir.Value:
    scale = net.constant(1 + net.rng.normal(scale=0.1, size=_WIDTH))
    bias = net.constant(net.rng.normal(scale=0.1, size=_WIDTH))
    return net.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)


def _gelu(net: Net, x: ir.Value) -> ir.Value:
    erf = net.op("Erf", net.op("Div", x, net.constant(math.sqrt(2))))
    return net.op("Mul", net.op("Mul", x, net.op("Add", erf, net.constant(1.0))), net.constant(0.5))


def _attention(net: Net, x: ir.Value, mask: ir.Value) -> ir.Value:
    size = _WIDTH // _HEADS
    split = net.constant([1, _TOKENS, _HEADS, size], np.int64)
    # a query of twice the size: else all tokens would get nearly the same attention
    query, key, value = (_dense(net, x, _WIDTH, _WIDTH, gain) for gain in (2.0, 1.0, 1.0))
    orders = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    query, key, value = (
        net.op("Transpose", net.op("Reshape", v, split), perm=order)
        for v, order in zip((query, key, value), orders, strict=True)
    )
    scores = net.op("Div", net.op("MatMul", query, key), net.constant(math.sqrt(size)))
    weights = net.op("Softmax", net.op("Add", scores, mask), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    joined = net.op("Reshape", mixed, net.constant([1, _TOKENS, _WIDTH], np.int64))
    return _dense(net, joined, _WIDTH, _WIDTH)


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("resnet50", lambda: resnet((3, 4, 6, 3), bottleneck=True), image),
        Architecture("resnet18", lambda: resnet((2, 2, 2, 2), bottleneck=False), image),
        Architecture("mobilenet_v2", mobilenet_v2, image),
        Architecture("mobilenet_v3_large", lambda: mobilenet_v3_large(DECOMPOSED_HARDSWISH), image),
        Architecture("mobilenet_v3_large_op", lambda: mobilenet_v3_large(HARDSWISH), image),
        Architecture("bert_6x384", bert_6x384, tokens),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=sorted(ARCHITECTURES), metavar="NAME")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    ARCHITECTURES[args.name].save(args.output)


if __name__ == "__main__":
    main()
