"""Models of every opset compute the same after the conversion to opset 21, or are refused."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from support.models import load, random_feed, run

from ptq.errors import UnsupportedError
from ptq.graph.passes.upgrade_opset import UpgradeOpset

X = "float[2, 4, 6, 6] x"
BN = "float[4] a, float[4] b, float[4] c, float[4] var_d"
LSTM = "float[1, 12, 4] w, float[1, 12, 3] r"


@dataclass(frozen=True)
class Case:
    node: str
    opsets: tuple[int, ...]
    inputs: str = X
    weights: str = ""
    outputs: tuple[str, ...] = ("float",)
    options: dict = field(default_factory=dict)

    def model(self, opset):
        names = [f"y{i}" for i in range(len(self.outputs))]
        outputs = ", ".join(f"{t} {n}" for t, n in zip(self.outputs, names, strict=True))
        weights = f"<{self.weights}>" if self.weights else ""
        model = load(
            f"g ({self.inputs}) => ({outputs}) {weights}{{ {', '.join(names)} = {self.node} }}",
            opset=opset,
        )
        for value in model.graph.outputs:
            value.shape = None
        return model


#: Every operator whose definition changed in a way that a model must be rewritten for.
CASES = [
    Case("Add (x, x)", (7, 13, 14)),
    Case("ArgMax <axis = 1> (x)", (7, 12), outputs=("int64",)),
    Case("AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)", (7, 10, 18)),
    Case("BatchNormalization (x, a, b, c, var_d)", (7, 8, 9, 13, 14), weights=BN),
    Case("Cast <to = 7> (x)", (7, 9, 13, 18), outputs=("int64",)),
    Case("Clip <min = -0.5, max = 0.5> (x)", (7, 10)),
    Case("Clip <min = -0.5> (x)", (7, 10)),
    Case("DFT <axis = 1> (x)", (17, 19), inputs="float[2, 8, 1] x"),
    Case("Dropout <ratio = 0.3> (x)", (7, 10)),
    Case("Flatten <axis = 2> (x)", (7, 9)),
    Case(
        "Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, b)",
        (7, 9, 11),
        inputs="float[3, 4] x",
        weights="float[5, 4] w, float[5] b",
    ),
    Case('GridSample <mode = "bilinear"> (x, g)', (16, 19), weights="float[2, 3, 3, 2] g"),
    Case('GridSample <mode = "bicubic"> (x, g)', (16, 19), weights="float[2, 3, 3, 2] g"),
    Case(
        "GroupNormalization <num_groups = 2> (x, s, t)", (18, 20), weights="float[2] s, float[2] t"
    ),
    Case("Hardmax <axis = -1> (x)", (11, 12)),
    Case("Hardmax <axis = 3> (x)", (7, 12)),
    Case("LSTM <hidden_size = 3> (x, w, r)", (7, 13), inputs="float[5, 2, 4] x", weights=LSTM),
    Case("LayerNormalization (x, s)", (17,), weights="float[6] s"),
    Case("LogSoftmax <axis = 1> (x)", (7, 12)),
    Case("MaxPool <kernel_shape = [2, 2]> (x)", (7, 8, 10, 11)),
    Case(
        "OneHot (i, d, v)",
        (9, 10),
        inputs="int64[3] i",
        weights="int64 d = {4}, float[2] v = {0, 1}",
    ),
    Case("PRelu (x, s)", (7, 9, 15), weights="float[4, 1, 1] s"),
    Case("Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 1.5> (x)", (7, 10)),
    Case('Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1], mode = "reflect"> (x)', (7, 10)),
    Case("ReduceMax <axes = [1, 2], keepdims = 0> (x)", (7, 11, 12, 13, 17)),
    Case("ReduceMean <axes = [1, -1]> (x)", (11, 17)),
    Case("ReduceSum <axes = [1, 2], keepdims = 0> (x)", (7, 11, 12)),
    Case("ReduceSum <keepdims = 0> (x)", (7, 12, 13)),
    Case("Reshape (x, s)", (7, 13), weights="int64[2] s = {0, -1}"),
    Case('Resize <mode = "linear"> (x, s)', (10,), weights="float[4] s = {1, 1, 1.5, 2}"),
    Case('Resize <mode = "nearest"> (x, s)', (10,), weights="float[4] s = {1, 1, 1.5, 2}"),
    Case(
        'Resize <mode = "cubic"> (x, r, s)',
        (11, 13, 18),
        weights="float[0] r, float[4] s = {1, 1, 1.5, 2}",
    ),
    Case("Slice <starts = [1, 0], ends = [3, -1], axes = [1, 2]> (x)", (7, 9)),
    Case("Softmax (x)", (7, 12, 13)),
    Case("Softmax <axis = 2> (x)", (7, 12, 13)),
    Case("Split <axis = 1, split = [1, 3]> (x)", (7, 11, 12), outputs=("float", "float")),
    Case("Split <axis = 1> (x)", (7, 12, 13, 17), outputs=("float", "float")),
    Case("Squeeze <axes = [0, 2]> (x)", (7, 11, 12), inputs="float[1, 4, 1, 6] x"),
    Case("Sum (x, x)", (7, 8, 13)),
    Case("TopK <k = 2, axis = 1> (x)", (7, 9), outputs=("float", "int64")),
    Case("Unsqueeze <axes = [0, 3]> (x)", (7, 11, 12)),
    Case('Upsample <scales = [1.0, 1.0, 2.0, 1.5], mode = "nearest"> (x)', (7, 8)),
    Case('Upsample <mode = "linear"> (x, s)', (9,), weights="float[4] s = {1, 1, 2, 2}"),
]


@pytest.mark.parametrize(
    ("case", "opset"),
    [(c, o) for c in CASES for o in c.opsets],
    ids=lambda v: getattr(v, "node", v),
)
def test_computes_the_same(case, opset):
    model = case.model(opset)
    feed = random_feed(model)
    before = run(model, feed)
    assert UpgradeOpset()(model).count == 21 - opset
    assert model.opset_imports[""] == 21
    for old, new in zip(before, run(model, feed), strict=True):
        # the same kernels, but for Softmax of old opsets, which works on a flattened copy
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-6)
    assert UpgradeOpset()(model).count == 0


CONTROL_FLOW = [
    """g (float[1, 3, 1, 4] x, bool c) => (float[A, B] y) {
         y = If (c) <then_branch = t () => (float[A, B] u) { u = Squeeze <axes = [0, 2]> (x) },
                     else_branch = e () => (float[A, B] v) {
                         w = ReduceSum <axes = [0], keepdims = 0> (x)
                         k = Squeeze <axes = [1]> (w)
                         v = Softmax <axis = 0> (k) }> }""",
    """g (float[2, 3] s, float[5, 2, 3] xs) => (float[2, 3] f, float[5, 2, 3] ys) {
         f, ys = Scan <num_scan_inputs = 1, body = b (float[2, 3] a, float[2, 3] xi)
                       => (float[2, 3] o, float[2, 3] oo) {
                   o = Add (a, xi)
                   u = Unsqueeze <axes = [0]> (o)
                   oo = Squeeze <axes = [0]> (u) }> (s, xs) }""",
]


@pytest.mark.parametrize("text", CONTROL_FLOW, ids=["If", "Scan"])
@pytest.mark.parametrize("condition", [True, False])
def test_subgraphs_are_converted_too(text, condition):
    model = load(text, opset=11)
    feed = random_feed(model)
    if "c" in feed:
        feed["c"] = np.array(condition)
    before = run(model, feed)
    UpgradeOpset()(model)
    for old, new in zip(before, run(model, feed), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6)


@pytest.mark.parametrize("opset", [21, 22, 24, 26])
def test_newer_opsets_are_left_alone(opset):
    model = load("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=opset)
    assert UpgradeOpset()(model).count == 0
    assert model.opset_imports[""] == opset


def test_what_onnxruntime_does_not_run_is_refused():
    model = load("g (float[3] x) => (float[3] y) { y = Neg (x) }", opset=27)
    with pytest.raises(UnsupportedError, match="opset 27, onnxruntime runs up to 26"):
        UpgradeOpset()(model)


def test_a_model_without_the_standard_domain_is_left_alone():
    model = load("""
        <ir_version: 8, opset_import: ["ai.onnx.ml" : 3]>
        g (float[3] x) => (float[3] y) { y = ai.onnx.ml.Normalizer (x) }""")
    assert UpgradeOpset()(model).count == 0


@pytest.mark.parametrize(
    ("node", "weights", "opset", "match"),
    [
        ("PRelu (x, s)", "float[4] s", 6, "slope per channel"),
        ("Hardmax <axis = 1> (x)", "", 12, "last axis"),
        ("GroupNormalization <num_groups = 2> (x, x, x)", "", 18, "not known"),
        ("BatchNormalization <spatial = 0> (x, x, x, x, x)", "", 8, "from opset 8 to 21"),
    ],
)
def test_what_the_converter_cannot_do_is_refused(node, weights, opset, match):
    weights = f"<{weights}>" if weights else ""
    model = load(f"g ({X}) => (float y) {weights} {{ y = {node} }}", opset=opset)
    with pytest.raises(UnsupportedError, match=match):
        UpgradeOpset()(model)


def test_operators_that_only_onnxruntime_knows_are_kept():
    model = load(
        """
        g (float[1, 3, 4] x) => (float[3, 4] y) <float[4] s> {
          h = SimplifiedLayerNormalization <axis = -1> (x, s)
          y = Squeeze <axes = [0]> (h)
        }""",
        opset=11,
    )
    before = run(model, feed := random_feed(model))
    UpgradeOpset()(model)
    assert model.graph[0].op_identifier() == ("", "SimplifiedLayerNormalization", "")
    assert model.opset_imports == {"": 21}
    np.testing.assert_array_equal(run(model, feed)[0], before[0])


def test_names_weights_and_unknown_operators_survive():
    model = load("""
        <ir_version: 8, opset_import: ["" : 11, "my.domain" : 1]>
        g (float[N, 300] x) => (float[A] y) <float[300, 7] w, float[7] small> {
          h = MatMul (x, w)
          i = my.domain.Op <k = 3> (h, small)
          y = Squeeze <axes = [0]> (i)
        }""")
    model.graph[0].name = "first"
    model.metadata_props["author"] = "somebody"
    weight = model.graph.initializers["w"].const_value
    UpgradeOpset()(model)
    assert [value.name for node in model.graph for value in node.outputs][:2] == ["h", "i"]
    assert model.graph[0].name == "first"
    assert model.graph[1].domain == "my.domain"
    assert model.metadata_props["author"] == "somebody"
    assert model.graph.initializers["w"].const_value is weight
    assert list(model.opset_imports.items()) == [("", 21), ("my.domain", 1)]
    onnx.checker.check_model(ir.to_proto(model))
