"""Choose between equal ways to compute a gradient by their time, and remember what was chosen.

The weight gradient of a convolution can be a product of matrices, or a convolution, of several
layouts; none is the fastest for all shapes. What was chosen is a mapping of texts, so that it can
be kept beside the graph: the same choices make the same graph, byte by byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.errors import VerificationError
from ptq.graph.save import to_bytes
from ptq.runtime.session import Session, open_session
from ptq.train.tape import Tape

#: For about how many seconds ways are timed in all; beyond, the rules of thumb decide.
_BUDGET = 30.0

#: Appends one way to compute something from values, and returns the result.
Way: TypeAlias = Callable[..., ir.Value]

#: How often each way is run; the fastest run counts, as what else the machine does only adds time.
_RUNS = 4

#: A way that has taken so many times as long as another one is not run again.
_HOPELESS = 3.0


class Variants:
    """The ways that are taken, by what they are for.

    Args:
        chosen: what was chosen before; kept as it is.
        timed: whether onnxruntime measures what has not been chosen yet, for one thread; otherwise
            a rule of thumb decides. What is measured depends on the machine and its load.
    """

    def __init__(self, chosen: Mapping[str, str] | None = None, *, timed: bool = False) -> None:
        self.chosen: dict[str, str] = dict(chosen or {})
        self.timed = timed
        self.spent = 0.0

    def choose(
        self, key: str, ways: Mapping[str, Way], shapes: Sequence[Sequence[int]], usual: str
    ) -> str:
        """Return the name of the way to take.

        Args:
            key: what is computed, with all that its time depends on.
            ways: by name; all give the same, up to rounding.
            shapes: of the float32 values that a way is given.
            usual: the way to take where nothing is known.
        """
        if self.chosen.get(key) not in ways:
            timed = self.timed and len(ways) > 1 and self.spent < _BUDGET
            began = time.perf_counter()
            self.chosen[key] = fastest(ways, shapes) if timed else usual
            self.spent += time.perf_counter() - began
        return self.chosen[key]


def fastest(ways: Mapping[str, Way], shapes: Sequence[Sequence[int]]) -> str:
    """Return the way of the shortest run in onnxruntime, on one thread; the first of equals.

    Args:
        ways: by name.
        shapes: of the float32 values that a way is given.
    """
    rng = np.random.default_rng(0)
    feed = {f"x{i}": rng.standard_normal(shape, np.float32) for i, shape in enumerate(shapes)}
    sessions = {name: _session(way, shapes) for name, way in ways.items()}
    best = dict.fromkeys(ways, float("inf"))
    for run in range(_RUNS):
        for name, session in sessions.items():
            if not run or best[name] < _HOPELESS * min(best.values()):
                start = time.perf_counter()
                session.run(None, feed)
                best[name] = min(best[name], time.perf_counter() - start)
    return min(best, key=lambda name: best[name])


def _session(way: Way, shapes: Sequence[Sequence[int]]) -> Session:
    inputs = [
        ir.Value(name=f"x{i}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        for i, shape in enumerate(shapes)
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 21}, name="timed")
    output = way(Tape(graph, "timed/"), *inputs)
    output.dtype = ir.DataType.FLOAT
    graph.outputs.append(output)
    try:
        return open_session(to_bytes(ir.Model(graph, ir_version=10)))
    except VerificationError as error:
        raise AssertionError(f"a way to compute a gradient does not load: {error}") from error
