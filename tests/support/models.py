"""Small models for tests, written as ONNX text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from ptq.graph.check import Signature
from ptq.graph.passes.base import Rewrite

Arrays = Mapping[str, np.ndarray]


def parse(text: str, weights: Arrays | None = None, *, opset: int = 21, seed: int = 0):
    """Return the ModelProto of a graph in ONNX text.

    Tensors that are declared between ``<`` and ``>`` without a value become initializers: those
    in ``weights`` with the value given, the others with random values; a name that starts with
    ``var`` gets positive ones. A model without header gets the opset and IR version 8.
    """
    if "ir_version" not in text:
        text = f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    produced = {name for node in model.graph.node for name in node.output}
    declared = [info for info in model.graph.value_info if info.name not in produced]
    for info in declared:
        array = _random(info, rng) if info.name not in (weights or {}) else weights[info.name]
        model.graph.initializer.append(numpy_helper.from_array(array, info.name))
        model.graph.value_info.remove(info)
    return model


def _random(info: onnx.ValueInfoProto, rng: np.random.Generator) -> np.ndarray:
    shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
    array = rng.standard_normal(shape)
    if info.name.startswith("var"):
        array = np.abs(array) + 0.1
    return array.astype(np.dtype(ir.DataType(info.type.tensor_type.elem_type).numpy()))


def load(text: str, weights: Arrays | None = None, **options: int) -> ir.Model:
    """Return the onnx_ir model of a graph in ONNX text, as `parse` reads it."""
    return ir.from_proto(parse(text, weights, **options))


def write(path: Path, model: str | onnx.ModelProto) -> Path:
    """Write a model, or that of a graph in ONNX text as `parse` reads it, and return the path."""
    proto = parse(model) if isinstance(model, str) else model
    path.write_bytes(proto.SerializeToString())
    return path


def run(model: ir.Model | onnx.ModelProto | Path, feed: Arrays) -> list[np.ndarray]:
    """Run a model in onnxruntime as it is written, without optimizations, on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def random_feed(model: ir.Model | onnx.ModelProto, seed: int = 0, **dims: int) -> Arrays:
    """Return normal inputs for a model; ``dims`` gives sizes to dynamic dimensions, else 2."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    rng = np.random.default_rng(seed)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    feed = {}
    for info in proto.graph.input:
        if info.name in initializers:
            continue
        tensor = info.type.tensor_type
        shape = [d.dim_value or dims.get(d.dim_param, 2) for d in tensor.shape.dim]
        values = rng.standard_normal(shape) * 2
        feed[info.name] = np.asarray(values).astype(ir.DataType(tensor.elem_type).numpy())
    return feed


def op_types(model: ir.Model) -> list[str]:
    """Return the operator types of the main graph in order."""
    return [node.op_type for node in model.graph]


def node_of(model: ir.Model, op_type: str) -> ir.Node:
    """Return the only node of a type in the main graph."""
    [node] = [node for node in model.graph if node.op_type == op_type]
    return node


def check_rewrite(
    rewrite: Rewrite,
    model: ir.Model,
    *,
    count: int,
    feed: Arrays | None = None,
    tolerance: float = 0.0,
) -> ir.Model:
    """Apply a rewrite and check what every rewrite promises; return the model.

    It changes as much as it says, keeps inputs, outputs and what they compute, leaves a model that
    the ONNX checker accepts, and changes nothing when it is run again.

    Args:
        rewrite: the pass.
        model: it is changed.
        count: how many things are to be changed.
        feed: inputs, by default random ones.
        tolerance: largest difference of an output, relative to its largest value.
    """
    feed = random_feed(model) if feed is None else feed
    signature, before = Signature.of(model), run(model, feed)
    for output, array in zip(model.graph.outputs, before, strict=True):
        if output.shape is None:  # which the checker does not take
            output.shape = ir.Shape([None] * array.ndim)
    assert rewrite(model).count == count
    assert Signature.of(model) == signature
    onnx.checker.check_model(ir.to_proto(model))
    assert_close(before, run(model, feed), tolerance)
    assert rewrite(model).count == 0
    return model


def assert_close(before: list[np.ndarray], after: list[np.ndarray], tolerance: float) -> None:
    """Check that outputs agree, relative to the largest value of each; 0 asks for equal bits."""
    for old, new in zip(before, after, strict=True):
        assert old.shape == new.shape
        assert old.dtype == new.dtype
        if tolerance and old.size:
            assert np.abs(old - new).max() <= tolerance * max(np.abs(old).max(), 1e-30)
        else:
            np.testing.assert_array_equal(old, new)
