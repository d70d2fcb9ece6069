"""The choice between equal ways to a gradient: it is recorded, and a recorded one is followed."""

from __future__ import annotations

from types import SimpleNamespace

import onnx_ir as ir
import pytest

from ptq.graph.save import to_bytes
from ptq.train import variants
from ptq.train.gradients.convolution import Convolution, by_weight
from ptq.train.gradients.windows import Windows
from ptq.train.tape import Tape
from ptq.train.variants import Variants

CONV = Convolution(2, 3, 4, 1, Windows((5, 5), (5, 5), (3, 3), (1, 1), (1, 1), (1, 1)))


def made(choice: Variants) -> bytes:
    """Return a graph of the gradient of a weight."""
    values = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        for name, shape in {"x": CONV.image, "g": CONV.result}.items()
    ]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 21}, name="gradient")
    graph.outputs.append(by_weight(Tape(graph, "grad/"), choice, CONV, *values))
    return to_bytes(ir.Model(graph, ir_version=10))


def test_what_was_timed_is_recorded_and_makes_the_same_graph_again() -> None:
    timed = Variants(timed=True)
    first = made(timed)
    assert list(timed.chosen) == [CONV.key("weight")]
    assert made(Variants(timed.chosen)) == first


def test_a_recorded_choice_is_followed() -> None:
    graphs = {made(Variants({CONV.key("weight"): way})) for way in ("taps", "flat", "swapped")}
    assert len(graphs) == 3


def test_a_recorded_choice_that_is_none_of_the_ways_is_replaced() -> None:
    assert made(Variants({CONV.key("weight"): "of old"})) == made(Variants())


def test_the_way_of_the_shortest_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now, runs = [0.0], {"first": [9.0, 2.0, 3.0, 2.0], "second": [4.0, 4.0, 1.0, 4.0]}

    def session(way: str, shapes: object) -> SimpleNamespace:
        return SimpleNamespace(run=lambda *_: now.append(now[-1] + runs[way].pop(0)))

    monkeypatch.setattr(variants, "time", SimpleNamespace(perf_counter=lambda: now[-1]))
    monkeypatch.setattr(variants, "_session", session)
    assert variants.fastest({"first": "first", "second": "second"}, [(2, 2)]) == "second"
