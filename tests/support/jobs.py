"""Small training jobs, made without exporting a model: a line is fitted to that of a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ptq.train import manifest as contract
from ptq.train.arrays import packed
from ptq.train.estimators import functions, resolve
from ptq.train.job import Job
from ptq.train.manifest import Array, Loss, Manifest, TrainedArray
from ptq.train.reverse import differentiate
from ptq.train.straight_through import straight_through
from ptq.train.tape import Tape
from ptq.train.trace import trace

#: Rows that a run of the training graph takes, and values in a row.
BATCH, WIDTH = 4, 3

#: What the teacher multiplies its inputs by.
SLOPE = np.array([[1.0, -2.0, 0.5]], np.float32)


def line_job(
    folder: Path,
    *,
    decay: float = 0.0,
    positive: bool = False,
    spoilt: bool = False,
    state: bool = True,
    held_out: Mapping[str, np.ndarray] | None = None,
) -> Job:
    """Write a job that fits ``y = scale · Σ w x`` to the teacher's ``Σ SLOPE x``, and open it.

    ``seen`` is a state: the number of runs of the training graph.

    Args:
        folder: is made.
        decay: of ``w``.
        positive: whether ``scale`` has to stay above 0.
        spoilt: divide the gradient of ``scale`` by 0.
        state: whether ``seen`` is one, or stays.
        held_out: the arrays of ``held_out.npz``; 8 rows by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = {
        "w": np.array([[0.1, 0.2, 0.3]], np.float32),
        "scale": np.array(1.0, np.float32),
        "seen": np.array(0.0, np.float32),
        "unused": np.array([7.0], np.float32),
    }
    _save(_teacher(), folder / contract.TEACHER)
    train, eval_ = _graphs(start, spoilt=spoilt)
    _save(train, folder / contract.TRAIN)
    _save(eval_, folder / contract.EVAL)
    _save(_forward(start), folder / contract.FORWARD)
    (folder / contract.PARAMETERS).write_bytes(packed(start))
    held = held_out or {"00000/x": rows(5, seed=1), "00001/x": rows(3, seed=2)}
    (folder / contract.HELD_OUT).write_bytes(packed(held))
    names = (
        contract.TEACHER, contract.FORWARD, contract.TRAIN, contract.EVAL, contract.PARAMETERS,
        contract.HELD_OUT,
    )  # fmt: skip
    manifest = Manifest(
        ptq="0",
        method="test",
        weight_bits=4,
        activation_bits=4,
        batch=BATCH,
        inputs=(Array(name="x", shape=(BATCH, WIDTH), dtype="float32"),),
        targets=(Array(name="target", shape=(BATCH, 1), dtype="float32"),),
        loss=Loss(kind="mse"),
        outputs=("y",),
        parameters=(
            TrainedArray(
                name="w", shape=(1, 3), role="weight", site="line", decay=decay, gradient="d::w"
            ),
            TrainedArray(
                name="scale", shape=(), role="range", site="line", rate=0.1, positive=positive,
                gradient="d::scale",
            ),
            TrainedArray(
                name="seen", shape=(), role="state", site="line",
                becomes="next::seen" if state else None,
            ),
            TrainedArray(name="unused", shape=(1,), role="bias", site="line"),
        ),
        untrained=(),
        sha256={n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names},
        config={},
    )  # fmt: skip
    (folder / contract.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return Job.open(folder)


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Return data for the job: float32, ``(count, WIDTH)``."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def _teacher() -> ir.Model:
    x = _input("x", ("N", WIDTH))
    graph = _graph([x])
    y = Tape(graph, "t/").op("ReduceSum", Tape(graph, "u/").op("Mul", x, SLOPE), [1], keepdims=1)
    return _finished(graph, {"aim": y})


def _forward(start: Mapping[str, np.ndarray]) -> ir.Model:
    """Return the line with one of the operators that only training knows."""
    parameters = {name: _input(name, array.shape) for name, array in start.items()}
    x = _input("x", ("N", WIDTH))
    graph = _graph([x, *parameters.values()])
    graph.opset_imports["ptq"] = 1
    tape = Tape(graph, "f/")
    line = tape.op("ReduceSum", tape.op("Mul", x, parameters["w"]), [1], keepdims=1)
    y = tape.op("Mul", straight_through(tape, line, line), parameters["scale"])
    model = _finished(graph, {"y": y})
    model.functions.update({f.identifier(): f for f in functions()})
    return model


def _graphs(start: Mapping[str, np.ndarray], *, spoilt: bool) -> tuple[ir.Model, ir.Model]:
    made = []
    for batch in (BATCH, "N"):
        x, target = _input("x", (batch, WIDTH)), _input("target", (batch, 1))
        parameters = {name: _input(name, array.shape) for name, array in start.items()}
        train = batch == BATCH
        graph = _graph([x, target, *parameters.values()])
        tape = Tape(graph, "f/")
        w = parameters["w"]
        product = tape.op("Mul", x, w)
        line = tape.op("ReduceSum", product, [1], keepdims=1)
        y = tape.op("Mul", line, parameters["scale"])
        error = tape.op("Sub", y, target)
        squares = tape.op("Mul", error, error)
        if not train:
            made.append(
                _finished(graph, {"y": y, "loss": tape.op("ReduceMean", squares, keepdims=0)})
            )
            continue
        loss = tape.op("Mul", tape.op("ReduceSum", squares, keepdims=0), 1 / BATCH)
        model = ir.Model(graph, ir_version=10, functions=list(functions()))
        feed = {"x": rows(BATCH), "target": np.zeros((BATCH, 1), np.float32), **start}
        graph.outputs.append(loss)
        found = differentiate(graph, loss, [w, parameters["scale"]], trace(model, feed))
        del graph.outputs[:]
        resolve(graph)
        seen = tape.op("Add", parameters["seen"], 1.0)
        outputs = {
            "loss": loss,
            "d::w": found.of["w"],
            "d::scale": tape.op("Div", found.of["scale"], float(not spoilt)),
            "next::seen": seen,
            "y": y,
        }
        made.append(_finished(graph, outputs))
    return made[0], made[1]


def _graph(inputs: list[ir.Value]) -> ir.Graph:
    return ir.Graph(inputs, [], nodes=[], opset_imports={"": 21}, name="line")


def _finished(graph: ir.Graph, outputs: Mapping[str, ir.Value]) -> ir.Model:
    tape = Tape(graph, "end/")
    for name, value in outputs.items():
        named = tape.op("Identity", value)
        named.name, named.dtype = name, ir.DataType.FLOAT
        graph.outputs.append(named)
    return ir.Model(graph, ir_version=10)


def _input(name: str, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _save(model: ir.Model, path: Path) -> None:
    ir.save(model, path)
