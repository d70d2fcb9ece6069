"""Random small graphs whose arithmetic is exact, so that equal means equal to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

#: Declared in every graph; weights are multiples of 1/16 and small, inputs multiples of 1/8.
_DECLARED = """
    float[4, 4, 1, 1] w0, float[4, 4, 3, 3] w1, float[4, 1, 3, 3] w2, float[4] b0,
    float zero = {0}, float two = {2}, float minus = {-1}, float half = {0.5},
    float[4, 1, 1] array, int64[2] parts = {1, 3}, int64[1] axis0 = {0}"""

#: Operators from tensors of shape (1, 4, 8, 8) to one of that shape; ``{0}`` and ``{1}`` are
#: operands, ``{n}`` is a number of its own.
_OPERATORS = {
    "conv": "t{n} = Conv ({0}, w0, b0)",
    "conv 3x3": "t{n} = Conv <pads = [1, 1, 1, 1]> ({0}, w1)",
    "depthwise": "t{n} = Conv <pads = [1, 1, 1, 1], group = 4> ({0}, w2, b0)",
    "relu": "t{n} = Relu ({0})",
    "clip": "t{n} = Clip ({0}, minus, two)",
    "add": "t{n} = Add ({0}, {1})",
    "add a scalar": "t{n} = Add ({0}, half)",
    "add an array": "t{n} = Add (array, {0})",
    "multiply by a scalar": "t{n} = Mul (half, {0})",
    "leaky relu": "t{n} = LeakyRelu <alpha = 0.25> ({0})",
    "max pool": "t{n} = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({0})",
    "transpose": "t{n} = Transpose <perm = [0, 1, 3, 2]> ({0})",
    "concatenate": "c{n} = Concat <axis = 1> ({0}, {1}) t{n} = Slice (c{n}, first{n}, last{n}, ax)",
    "split": "p{n}, q{n} = Split <axis = 1> ({0}, parts) t{n} = Concat <axis = 1> (q{n}, p{n})",
    "squeeze": "s{n} = Squeeze ({0}, axis0) t{n} = Unsqueeze (s{n}, axis0)",
    "negative": "t{n} = Neg ({0})",
    "magnitude": "t{n} = Abs ({0})",
}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, dict[str, np.ndarray], list[str]]:
    """Return a graph in ONNX text, its weights, and the names of its tensors."""
    tensors = ["x"]
    lines, declared = [], [_DECLARED, "int64[1] ax = {1}"]
    count = draw(st.integers(2, 9))
    for n in range(count):
        # nothing is integer but between convolutions
        kinds = sorted(_OPERATORS) if 0 < n < count - 1 else ["conv", "conv 3x3", "depthwise"]
        operator = _OPERATORS[draw(st.sampled_from(kinds))]
        recent = st.sampled_from(tensors[-2:])
        lines.append(operator.format(draw(recent), draw(recent), n=n))
        first = draw(st.integers(0, 4))
        declared += [f"int64[1] first{n} = {{{first}}}", f"int64[1] last{n} = {{{first + 4}}}"]
        tensors.append(f"t{n}")
    inner = tensors[1:-1]
    outputs = draw(st.lists(st.sampled_from(inner), unique=True, max_size=2)) if inner else []
    listed = ", ".join(f"float[N, C, H, W] {name}" for name in [tensors[-1], *outputs])
    body = "\n".join(lines)
    text = f"g (float[1, 4, 8, 8] x) => ({listed}) <{', '.join(declared)}> {{\n{body}\n}}"
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    weights = {
        name: (rng.integers(-8, 9, shape) / 16).astype(np.float32)
        for name, shape in {
            "w0": (4, 4, 1, 1),
            "w1": (4, 4, 3, 3),
            "w2": (4, 1, 3, 3),
            "b0": (4,),
            "array": (4, 1, 1),
        }.items()
    }
    return text, weights, tensors


def exact_feed(seed: int = 0) -> dict[str, np.ndarray]:
    """Return an input of multiples of 1/8."""
    values = np.random.default_rng(seed).integers(-24, 25, (1, 4, 8, 8)) / 8
    return {"x": values.astype(np.float32)}
