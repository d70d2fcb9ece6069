"""Which nodes of a model the kernels of the optimized graph stand for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import parse

from ptq.errors import ModelError
from ptq.runtime.origins import Kernel, Origins, kernels_of, read_proto
from ptq.runtime.session import open_session


def origins(text, tmp_path, weights=None):
    """Return the origin of every kernel onnxruntime makes of a model, by kernel."""
    proto = parse(text, weights)
    looked_up = Origins(proto)
    optimized = tmp_path / "optimized.onnx"
    open_session(proto.SerializeToString(), optimized=optimized)
    kernels = kernels_of(optimized)
    return dict(zip(kernels, looked_up.of(kernels), strict=True))


def nodes_by_type(found):
    return [(kernel.op_type, sorted(origin.nodes)) for kernel, origin in found.items()]


def test_a_convolution_stands_for_the_normalization_and_the_relu_that_it_absorbed(tmp_path):
    found = origins(
        """
        g (float[1,16,8,8] x) => (float[1,16,8,8] y)
        <float[16,16,3,3] w, float[16] s, float[16] b, float[16] m, float[16] var>
        {
          [conv] c = Conv <pads=[1,1,1,1]> (x, w)
          [norm] n = BatchNormalization (c, s, b, m, var)
          [relu] y = Relu (n)
        }
        """,
        tmp_path,
    )
    [convolution] = [k for k in found if k.op_type == "Conv"]
    assert convolution.name == "y_nchwc", "the case this is about: called after its output"
    assert found[convolution].nodes == {"conv", "norm", "relu"}
    assert found[convolution].tensors == {"c", "n", "y"}
    assert all(not o.nodes for k, o in found.items() if k.op_type.startswith("Reorder"))


@pytest.mark.parametrize("relu", [True, False])
def test_an_addition_belongs_to_the_convolution_it_was_merged_into(tmp_path, relu):
    # without the Relu, the name of the kernel is that of the second Conv
    found = origins(
        f"""
        g (float[1,16,8,8] x) => (float[1,16,8,8] y) <float[16,16,1,1] w, float[16,16,1,1] v>
        {{
          [first] a = Conv (x, w)
          [second] b = Conv (a, v)
          [add] c = Add (a, b)
          [relu] d = {"Relu" if relu else "Identity"} (c)
          [third] y = Conv (d, v)
        }}
        """,
        tmp_path,
    )
    assert [o.nodes for k, o in found.items() if k.op_type == "Conv"] == [
        {"first"},
        {"second", "add", "relu"} if relu else {"second", "add"},
        {"third"} if relu else {"relu", "third"},
    ]


QDQ = """
g (float[1,16,8,8] x) => (float[1,16,8,8] y)
<float s = {0.02}, uint8 z = {128}, int8[16,16,1,1] w, float[16] ws, int8[16] wz>
{
  [xq] xc = QuantizeLinear (x, s, z)
  [xd] xf = DequantizeLinear (xc, s, z)
  [wd] wf = DequantizeLinear <axis=0> (w, ws, wz)
  [conv] c = Conv (xf, wf)
  [cq] cc = QuantizeLinear (c, s, z)
  [cd] cf = DequantizeLinear (cc, s, z)
  [again] a = Conv (cf, wf)
  [aq] ac = QuantizeLinear (a, s, z)
  [ad] y = DequantizeLinear (ac, s, z)
}
"""
WEIGHTS = {
    "w": np.ones((16, 16, 1, 1), np.int8),
    "ws": np.full(16, 0.01, np.float32),
    "wz": np.zeros(16, np.int8),
}


def test_an_integer_kernel_stands_for_what_it_made_unnecessary(tmp_path):
    found = origins(QDQ, tmp_path, WEIGHTS)
    assert [sorted(o.nodes) for k, o in found.items() if k.op_type == "QLinearConv"] == [
        ["cd", "conv", "cq"],
        ["again", "aq"],
    ]
    transposes = [o for k, o in found.items() if k.op_type == "Transpose"]
    assert len(transposes) == 2, "the case this is about: between NCHW and NHWC"
    assert all(not o.nodes and not o.tensors for o in transposes)
    assert ("QuantizeLinear", ["xd", "xq"]) in nodes_by_type(found)
    assert ("DequantizeLinear", ["ad"]) in nodes_by_type(found)


def test_a_node_without_a_name_is_called_after_its_type_and_output(tmp_path):
    proto = parse("g (float[4] x) => (float[4] y) { a = Neg (x) [mine] b = Abs (a) y = Neg (b) }")
    proto.graph.node[2].name = ""
    looked_up = Origins(proto)
    assert looked_up.renamed
    assert [node.name for node in proto.graph.node] == ["Neg:a", "mine", "Neg:y"]
    assert not Origins(proto).renamed


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("conv", "conv"),
        ("fused conv", "conv"),
        ("conv_nhwc", "conv"),
        ("conv_token_12", "conv"),
        ("conv_nhwc_token_3", "conv"),
        ("conv/LayerNormFusion/", "conv"),
        ("conv/duplicated", "conv"),
        ("If_0_then_branch__Inline_0__conv", "conv"),
        ("t_nchwc", "conv"),
        ("t_pre_q_nchwc", "conv"),
        ("neg_token_1", "neg_token_1"),
        ("neg_token_1_token_2", "neg_token_1"),
        ("t", None),
        ("Transpose_token_3", None),
    ],
)
def test_a_kernel_is_known_by_what_its_node_was_called(name, node):
    proto = parse(
        "g (float[1,1,4,4] x) => (float[1,1,4,4] y) <float[1,1,1,1] w>"
        "{ [conv] t = Conv (x, w) [neg_token_1] y = Neg (t) }"
    )
    [origin] = Origins(proto).of([Kernel(name, "Any", ())])
    assert (node in origin.nodes) if node else not origin.nodes


def test_a_dequantization_that_was_copied_belongs_to_each_copy():
    proto = parse(QDQ, WEIGHTS)
    kernels = [
        Kernel("cd", "DequantizeLinear", ()),
        Kernel("cd/duplicated", "DequantizeLinear", ()),
    ]
    assert all("cd" in origin.nodes for origin in Origins(proto).of(kernels))


@given(st.data())
def test_no_node_has_two_kernels_however_the_runtime_merged_them(data):
    # a random graph of which a random part of the nodes is left, as kernels named after it
    length = data.draw(st.integers(2, 9))
    lines = []
    for i in range(length):
        a, b = (data.draw(st.integers(0, i)) for _ in range(2))
        lines.append(f"[n{i + 1}] t{i + 1} = Add (t{a}, t{b})")
    text = f"g (float[4] t0) => (float[4] t{length}) {{ {' '.join(lines)} }}"
    left = data.draw(st.lists(st.integers(1, length), unique=True).map(sorted))
    found = Origins(parse(text)).of([Kernel(f"n{i}", "Add", (f"t{i}",)) for i in left])
    assert all(f"n{i}" in origin.nodes for i, origin in zip(left, found, strict=True))
    assert max(Counter(n for o in found for n in o.nodes).values(), default=1) == 1


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_proto(b"no model")
    with pytest.raises(ModelError, match="cannot be read"):
        read_proto(tmp_path / "missing.onnx")
