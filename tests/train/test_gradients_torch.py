"""Gradients that onnxruntime computes in float32, against those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.gradients import Forward, run_gradients

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(11)
SHAPE = (2, 4, 6, 4)

#: Both forms of a function of one operand.
ONE: dict[str, tuple[Forward, Callable[[Any], Any]]] = {
    "abs": (lambda t, x: t.op("Abs", x), torch.abs),
    "square": (lambda t, x: t.op("Pow", x, 2.0), torch.square),
    "erf": (lambda t, x: t.op("Erf", x), torch.erf),
    "tanh": (lambda t, x: t.op("Tanh", x), torch.tanh),
    "softplus": (lambda t, x: t.op("Softplus", x), F.softplus),
    "softsign": (lambda t, x: t.op("Softsign", x), F.softsign),
    "relu": (lambda t, x: t.op("Relu", x), F.relu),
    "leaky relu": (lambda t, x: t.op("LeakyRelu", x, alpha=0.1), lambda x: F.leaky_relu(x, 0.1)),
    "relu6": (lambda t, x: t.op("Clip", x, 0.0, 6.0), F.relu6),
    "at most": (lambda t, x: t.op("Clip", x, None, 1.0), lambda x: torch.clamp(x, max=1.0)),
    "sigmoid": (lambda t, x: t.op("Sigmoid", x), torch.sigmoid),
    "hard sigmoid": (lambda t, x: t.op("HardSigmoid", x, alpha=1 / 6), F.hardsigmoid),
    "hard swish": (lambda t, x: t.op("HardSwish", x), F.hardswish),
    "mish": (lambda t, x: t.op("Mish", x), F.mish),
    "elu": (lambda t, x: t.op("Elu", x), F.elu),
    "selu": (lambda t, x: t.op("Selu", x), F.selu),
    "celu": (lambda t, x: t.op("Celu", x, alpha=2.0), lambda x: F.celu(x, 2.0)),
    "gelu": (lambda t, x: t.op("Gelu", x), F.gelu),
    "gelu by tanh": (
        lambda t, x: t.op("Gelu", x, approximate="tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "softmax": (lambda t, x: t.op("Softmax", x, axis=1), lambda x: F.softmax(x, 1)),
    "log softmax": (lambda t, x: t.op("LogSoftmax", x), lambda x: F.log_softmax(x, -1)),
    "lengths of one": (lambda t, x: t.op("LpNormalization", x), lambda x: F.normalize(x, dim=-1)),
    "magnitudes of one": (
        lambda t, x: t.op("LpNormalization", x, p=1),
        lambda x: F.normalize(x, p=1, dim=-1),
    ),
    "responses": (
        lambda t, x: t.op("LRN", x, size=3, alpha=0.3),
        lambda x: F.local_response_norm(x, 3, alpha=0.3, k=1.0),
    ),
    "largest": (lambda t, x: t.op("ReduceMax", x, [1, 3]), lambda x: x.amax((1, 3))),
    "log sum exp": (lambda t, x: t.op("ReduceLogSumExp", x, [-1]), lambda x: x.logsumexp(-1)),
    "product": (lambda t, x: t.op("ReduceProd", x, [2]), lambda x: x.prod(2)),
    "sums up to": (lambda t, x: t.op("CumSum", x, np.array(1)), lambda x: x.cumsum(1)),
    "three largest": (
        lambda t, x: t.ops("TopK", x, [3], outputs=2)[0],
        lambda x: x.topk(3, -1)[0],
    ),
    "every other, reversed": (
        lambda t, x: t.op("Slice", x, [-1, 1], [-9, 6], [3, 2], [-2, 2]),
        lambda x: x.flip(3)[:, :, 1::2, ::2],
    ),
    "shuffled": (
        lambda t, x: t.op("DepthToSpace", x, blocksize=2, mode="CRD"),
        lambda x: F.pixel_shuffle(x, 2),
    ),
    "unshuffled": (
        lambda t, x: t.op("SpaceToDepth", x, blocksize=2),
        lambda x: F.pixel_unshuffle(x, 2),
    ),
    "triangle": (lambda t, x: t.op("Trilu", x, np.array(1)), lambda x: x.triu(1)),
    "tiled": (lambda t, x: t.op("Tile", x, [1, 2, 1, 3]), lambda x: x.tile(1, 2, 1, 3)),
}

FOUR, LAST = (4,), SHAPE[-1:]
STATISTICS = np.full(4, 0.1, np.float32), np.full(4, 1.5, np.float32)

#: Both forms of a function of several operands, and the shapes of those after the first.
SEVERAL: dict[str, tuple[Forward, Callable[..., Any], list[tuple[int, ...]]]] = {
    "prelu": (
        lambda t, x, a: t.op("PRelu", x, t.op("Unsqueeze", a, [1, 2])),
        lambda x, a: F.prelu(x, a),
        [FOUR],
    ),
    "layer": (
        lambda t, *x: t.op("LayerNormalization", *x),
        lambda x, s, b: F.layer_norm(x, LAST, s, b),
        [LAST, LAST],
    ),
    "instance": (
        lambda t, *x: t.op("InstanceNormalization", *x),
        lambda x, s, b: F.instance_norm(x, weight=s, bias=b),
        [FOUR, FOUR],
    ),
    "group": (
        lambda t, *x: t.op("GroupNormalization", *x, num_groups=2),
        lambda x, s, b: F.group_norm(x, 2, s, b),
        [FOUR, FOUR],
    ),
    "frozen batch": (
        lambda t, *x: t.op("BatchNormalization", *x, *STATISTICS),
        lambda x, s, b: F.batch_norm(x, *(torch.tensor(v).double() for v in STATISTICS), s, b),
        [FOUR, FOUR],
    ),
    "power": (
        lambda t, x, b: t.op("Pow", t.op("Exp", x), b),
        lambda x, b: torch.pow(torch.exp(x), b),
        [LAST],
    ),
    "products": (
        lambda t, a, b: t.op("Einsum", a, b, equation="nchw,cvw->nhv"),
        lambda a, b: torch.einsum("nchw,cvw->nhv", a, b),
        [(4, 3, 4)],
    ),
    "joined": (
        lambda t, a, b: t.op("Concat", a, b, a, axis=1),
        lambda a, b: torch.cat([a, b, a], 1),
        [(2, 3, 6, 4)],
    ),
}


def _agree(forward: Forward, torch_forward: Callable[..., Any], feed: dict[str, Any]) -> None:
    given = {n: torch.tensor(a.astype(np.float64), requires_grad=True) for n, a in feed.items()}
    (torch_forward(*given.values()) ** 3).sum().backward()  # squares of unit length are constant
    found = run_gradients(forward, feed)
    for name, value in given.items():
        expected = value.grad.numpy()
        scale = np.abs(expected).max()  # of which float32 keeps seven digits, sums six
        np.testing.assert_allclose(found[name] / scale, expected / scale, rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", ONE)
def test_a_function_of_one_operand(name: str) -> None:
    x = (RNG.normal(size=SHAPE) * 2).astype(np.float32)
    _agree(*ONE[name], {"x": x})


#: The order of gates: where those of PyTorch stand among those of ONNX.
RECURRENT = {"GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}


@pytest.mark.parametrize("op_type", RECURRENT)
def test_a_recurrent_operator_in_both_directions(op_type: str) -> None:
    order, n = RECURRENT[op_type], 5
    shapes = [(6, 3, 4), (2, len(order) * n, 4), (2, len(order) * n, n), (2, 2 * len(order) * n)]
    feed = {
        name: RNG.normal(size=s).astype(np.float32) for name, s in zip("xwrb", shapes, strict=True)
    }
    form: dict[str, int] = {"linear_before_reset": 1} if op_type == "GRU" else {}

    def forward(t, *x):  # type: ignore[no-untyped-def]
        return t.ops(op_type, *x, outputs=2, hidden_size=n, direction="bidirectional", **form)[0]

    def torch_forward(x: Any, w: Any, r: Any, b: Any) -> Any:
        parts = [p for way in (0, 1) for p in (w[way], r[way], *b[way].chunk(2))]
        chunks = [part.chunk(len(order)) for part in parts]
        given = [torch.cat([gates[i] for i in order]) for gates in chunks]
        first = torch.zeros(2, 3, n).double()
        first = first if op_type == "GRU" else (first, first)
        compute = torch.gru if op_type == "GRU" else torch.lstm
        found = compute(x, first, given, True, 1, 0.0, False, True, False)[0]
        return found.reshape(6, 3, 2, n).transpose(1, 2)

    _agree(forward, torch_forward, feed)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_function_of_several_operands(name: str) -> None:
    forward, torch_forward, shapes = SEVERAL[name]
    feed = {"x": RNG.normal(size=SHAPE).astype(np.float32)}
    feed |= {f"p{i}": RNG.uniform(0.5, 1.5, s).astype(np.float32) for i, s in enumerate(shapes)}
    _agree(forward, torch_forward, feed)
