"""What a training graph aims at: outputs, scores before a softmax, and what blocks put out."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from ptq.errors import UnsupportedError
from ptq.source import open_source
from ptq.train.graphs import choose_targets
from ptq.train.tape import Tape

MODELS = Path(__file__).resolve().parent.parent / "models"


def network(*op_types: str) -> ir.Model:
    """Return a chain of operators of one operand."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 21}, name="chain")
    tape = Tape(graph, "n/")
    for op_type in op_types:
        value = tape.op(op_type, value)
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape([2, 3])
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("kind", "op_types", "tensor", "how"),
    [
        ("auto", ("Relu", "Softmax"), "n/Relu_1", "kl"),
        ("auto", ("Relu", "LogSoftmax"), "n/Relu_1", "kl"),
        ("auto", ("Softmax", "Relu"), "n/Relu_2", "mse"),
        ("mse", ("Relu", "Softmax"), "n/Softmax_2", "mse"),
        ("kl", ("Relu",), "n/Relu_1", "kl"),
    ],
)
def test_classes_are_compared_before_a_softmax(kind, op_types, tensor, how) -> None:
    (target,) = choose_targets(network(*op_types), kind)
    assert (target.tensor, target.kind) == (tensor, how)


def test_blocks_are_aimed_at_with_the_outputs_first() -> None:
    model = open_source(MODELS / "digits_cnn.onnx").model
    layers = [n.name or "" for n in model.graph if n.op_type == "Conv"]
    targets = choose_targets(model, "layers", layers)
    names = [t.tensor for t in targets]
    assert names[0] == "logits"
    assert "block1.add" in names
    assert len(set(names)) == len(names) > 3


def test_an_output_of_integers_is_no_target() -> None:
    model = network("Relu")
    model.graph.outputs[0].dtype = ir.DataType.INT64
    with pytest.raises(UnsupportedError, match="floats"):
        choose_targets(model, "auto")
