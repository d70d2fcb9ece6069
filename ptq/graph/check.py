"""What must hold after each stage; a stage that breaks it is a bug, found at once.

Idea: tinygrad's ``uop/spec.py``, where the legality of a graph is checked between the stages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.passes.edit import (
    int_attribute,
    is_constant,
    is_op,
    only_user,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of a graph's inputs, without initializers, and of its outputs, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: ir.Model) -> Signature:
        """Return the signature of the main graph."""
        graph = model.graph
        return cls(
            tuple(v.name or "" for v in graph.inputs if not v.is_initializer()),
            tuple(v.name or "" for v in graph.outputs),
        )


def structure(model: ir.Model) -> None:
    """Check that every tensor that is read is made by somebody, and every operator exists.

    Operators of other domains, and those that onnx does not know, are taken as they are.

    Raises:
        ModelError: a node or an output reads a tensor that is no input, no initializer and no
            output of a node; an operator is not in the declared opset, or its attributes or its
            number of inputs are not what its definition says.
    """
    functions = model.functions.values()
    scopes = [(graph, model.opset_imports) for graph in model.graphs()]
    scopes += [(graph, f.opset_imports) for f in functions for graph in (f.graph, *f.subgraphs())]
    for graph, opsets in scopes:
        for node in graph:
            missing = next((v for v in node.inputs if v is not None and not _exists(v)), None)
            if missing is not None:
                raise ModelError(
                    f"node '{node.name}' ({node.op_type}) reads '{missing.name}', which nothing in "
                    "the graph makes; export the model again"
                )
            if node.domain == "":
                _check_operator(node, opsets.get("", 0))
        for value in graph.outputs:
            if not _exists(value):
                raise ModelError(
                    f"output '{value.name}' is made by nothing in the graph; export the model again"
                )


def _check_operator(node: ir.Node, opset: int) -> None:
    schema = _schema(node.op_type, opset)
    if schema is None:
        if not onnx.defs.has(node.op_type):
            return  # onnxruntime has a few of its own in the standard domain
        raise ModelError(
            f"node '{node.name}' is a {node.op_type}, which is no operator of opset {opset}; "
            "export the model again"
        )
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    required = [i for i, formal in enumerate(schema.inputs) if formal.option == single]
    given = [i for i, value in enumerate(node.inputs) if value is not None]
    if (
        not schema.min_input <= len(node.inputs) <= schema.max_input
        or not schema.min_output <= len(node.outputs) <= schema.max_output
        or not set(required) <= set(given)
    ):
        raise ModelError(
            f"node '{node.name}' ({node.op_type}) has {len(node.inputs)} inputs and "
            f"{len(node.outputs)} outputs, which its definition forbids; export the model again"
        )
    for name, attribute in node.attributes.items():
        known = schema.attributes.get(name)
        kind = getattr(onnx.defs.OpSchema.AttrType, attribute.type.name)
        if known is not None and (known.type != kind or isinstance(attribute.value, bytes)):
            raise ModelError(
                f"attribute '{name}' of node '{node.name}' ({node.op_type}) is "
                f"{attribute.value!r}, which its definition forbids; export the model again"
            )


@functools.cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _exists(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def after_normalize(model: ir.Model, signature: Signature) -> None:
    """Check a normalized model against the signature it had before.

    Raises:
        ModelError: inputs or outputs were renamed or reordered, a Constant node is left in the
            main graph, a node has no name of its own, or a batchnorm follows a convolution that it
            could have been folded into. The text says that this is an internal error.
    """
    if Signature.of(model) != signature:
        _fail(f"the signature changed from {signature} to {Signature.of(model)}")
    names: set[str] = set()
    for node in model.graph:
        name = node.name or ""
        if not name or name in names:
            _fail(f"node '{name}' ({node.op_type}) has no name of its own")
        names.add(name)
        if is_op(node, "Constant"):
            _fail(f"node '{node.name}' is a Constant that was not lifted")
        if is_op(node, "BatchNormalization") and _follows_conv(node):
            _fail(f"batchnorm '{node.name}' was not folded into the convolution before it")


def _follows_conv(node: ir.Node) -> bool:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or not is_op(producer, "Conv"):
        return False
    parameters = [*producer.inputs[1:], *node.inputs[1:]]
    known = all(parameter is None or is_constant(parameter) for parameter in parameters)
    inference = int_attribute(node, "training_mode", 0) == 0 and len(node.outputs) == 1
    return known and inference and only_user(value) is node


def _fail(what: str) -> None:
    raise ModelError(f"internal error after normalize: {what}; please report it with the model")
