"""Blocks reconstructed by gradient descent: exact gradients, less error, the same every time."""

import numpy as np
import pytest
from support.nets import prepare

from ptq.graph.passes.edit import constant
from ptq.graph.save import to_bytes
from ptq.numerics.adaround import Annealing
from ptq.numerics.affine import QTensor, qparams_from_range, quantize
from ptq.numerics.qtype import QType
from ptq.plan import Decision
from ptq.runtime.session import open_session
from ptq.train.block_graph import TARGET, FakeActivation, extract, input_of, quantized_block
from ptq.train.blocks import find_blocks
from ptq.train.reconstruct import Descent, Problem, float_of, quantized_of, reconstruct
from ptq.train.streams import streamed

DENSE = "agraph (float[N, 6] x) => (float[N, 5] y) <float[6, 5] w> { y = MatMul (x, w) }"

RESIDUAL = """
agraph (float[N, 4, H, H] x) => (float[N, 4, H, H] y)
<float[6, 4, 3, 3] w, float[6] b, float[4, 6, 1, 1] v>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  c = Relu (a)
  d = Conv (c, v)
  y = Add (d, x)
}
"""

FLAT = """
agraph (float[1, 4, 3] x) => (float[12] y) <float[3, 3] w, int64[1] n>
{ a = MatMul (x, w)  y = Reshape (a, n) }
"""

FEW = Descent(iterations=80)


def rounded(array, axis, bits=3):
    other = tuple(i for i in range(array.ndim) if i != axis)
    qtype = QType.parse(f"int{bits}")
    lo, hi = array.min(axis=other), array.max(axis=other)
    params = qparams_from_range(lo, hi, qtype, symmetric=False, axis=axis)
    return QTensor(quantize(array, params), params)


class Made:
    """A block that is all of a network, and samples of it."""

    def __init__(self, text, shapes, axis=0, weights=None, activations=(), noise=0.1):
        self.model = prepare(text, weights)
        graph = self.model.graph
        layers = {n.name for n in graph if n.op_type in ("Conv", "MatMul")}
        (self.block,) = find_blocks(graph, layers)
        arrays = {v.name: constant(v) for n in graph for v in n.inputs[1:2] if v.is_initializer()}
        self.weights = {
            name: (a, rounded(a, axis)) for name, a in arrays.items() if a.dtype == np.float32
        }
        self.activations = activations
        rng, session = np.random.default_rng(0), None
        self.samples = []
        for shape in shapes:
            x = np.maximum(rng.normal(0.5, 1, shape), 0).astype(np.float32)
            read = x + noise * rng.normal(size=shape).astype(np.float32)
            extracted = extract(self.model, self.block, {"x": x})
            session = open_session(to_bytes(extracted))
            (y,) = session.run(None, {input_of("x"): x})
            self.samples.append({quantized_of("x"): read, float_of("x"): x, TARGET: y})

    def reconstruct(self, descent=FEW, **options):
        with streamed(self.samples, 1 << 20) as streams:
            extracted = extract(self.model, self.block, {"x": self.samples[0][quantized_of("x")]})
            problem = Problem(extracted, self.block, self.weights, self.activations, streams)
            return reconstruct(problem, descent, **options)


def test_the_gradient_is_the_closed_form():
    made = Made(DENSE, [(7, 6)])
    [sample] = made.samples
    x, y = sample[quantized_of("x")], sample[TARGET]
    [(name, (_, tensor))] = made.weights.items()
    extracted = extract(made.model, made.block, {"x": x})
    graph = quantized_block(extracted, made.block, [name], (), {"x": x}, y)
    values = tensor.dequantize()
    feed = {input_of("x"): x, TARGET: y, graph.weights[name]: values}
    loss, gradient = open_session(graph.training).run(None, feed)
    error = x.astype(np.float64) @ values - y
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)
    # 2 (W~ - W) H where inputs are the same, ALGORITHMS D8
    np.testing.assert_allclose(gradient, 2 * x.T @ error / y.size, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Made(DENSE, [(1, 6)] * 24, axis=1),
        lambda: Made(RESIDUAL, [(1, 4, 5, 5)] * 8),
        lambda: Made(RESIDUAL, [(1, 4, 5, 5)] * 4 + [(1, 4, 7, 7)] * 4),
        lambda: Made(FLAT, [(1, 4, 3)] * 8, axis=1, weights={"n": np.array([12])}),
    ],
    ids=["dense", "residual", "two shapes", "one by one"],
)
def test_the_error_of_the_block_shrinks(made):
    found = made().reconstruct()
    assert found.after < 0.9 * found.before


def test_codes_are_no_worse_than_they_were():
    made = Made(DENSE, [(1, 6)] * 8, axis=1)
    found = made.reconstruct(Descent(iterations=2, annealing=Annealing(rate=50.0)))  # far too fast
    assert found.after <= found.before


def test_the_same_seed_gives_the_same_codes():
    made = Made(RESIDUAL, [(1, 4, 5, 5)] * 8)
    one, other = (made.reconstruct(drop=0.5) for _ in range(2))
    for name, tensor in one.weights.items():
        np.testing.assert_array_equal(tensor.codes, other.weights[name].codes)


def test_activations_are_quantized_inside():
    decision = Decision(qtype="uint2", lo=0.0, hi=3.0, scale=1.0, zero_point=0, clip_share=0.0,
                        observed="c")  # fmt: skip
    plain = Made(RESIDUAL, [(1, 4, 5, 5)] * 8)
    coarse = Made(RESIDUAL, [(1, 4, 5, 5)] * 8, activations=(FakeActivation("c", decision),))
    assert coarse.reconstruct().before > 1.5 * plain.reconstruct().before
    assert coarse.reconstruct(drop=0.5).after < coarse.reconstruct().before
