"""Structure, names and parameters of what is emitted."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import load, random_feed
from support.nets import ORDINARY, Settings, check, normal, quantize, run, simulate

from ptq.errors import CalibrationError
from ptq.graph.check import Signature

CONV = "float[4, 4, 1, 1] w, float[4, 4, 1, 1] v, float[4] b"


def images(body, outputs="float[N, 4, H, W] y", declared=CONV, inputs="float[1, 4, 6, 6] x"):
    return f"g ({inputs}) => ({outputs}) <{declared}> {{ {body} }}"


def check_values(quantized, feed=None):
    """The ONNX checker takes the result, and both levels compute what the plan says."""
    check(quantized.model)
    assert Signature.of(quantized.model) == Signature.of(quantized.source)
    feed = feed or random_feed(quantized.source)
    expected = simulate(quantized, feed)
    for level in ("disabled", "all"):
        for found, wanted in zip(run(quantized.model, feed, level), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=level)


def of_type(model, op_type):
    return [node for node in model.graph if node.op_type == op_type]


# -- names ---------------------------------------------------------------------------------------


def test_a_float_value_keeps_its_name_with_a_suffix():
    quantized = quantize(images("y = Conv (x, w)"))
    [conv] = of_type(quantized.model, "Conv")
    assert conv.outputs[0].name == "y/float"
    assert [v.name for v in quantized.model.graph.outputs] == ["y"]


def test_taken_names_are_not_taken_again():
    taken = ["x/scale", "x/zero_point", "x/quantized", "x/dequantized", "x/Q", "w/quantized",
             "w/scale", "t/float", "t/clip_lo", "b/Conv:t/quantized"]  # fmt: skip
    declared = [CONV, *(f'float[4, 1, 1] "{name}"' for name in taken)]
    sums = [f'a{i} = Add (a{i - 1}, "{name}")' for i, name in enumerate(taken)]
    body = "t = Conv (x, w, b) r = Relu (t) y = Conv (r, v) z = Abs (x) " + " ".join(sums)
    text = images(body.replace("a-1", "z"), declared=", ".join(declared))
    text = text.replace("W] y)", f"W] y, float[N, 4, H, W] a{len(taken) - 1})")
    model = load(text)
    # no pass may merge or fold what stands in for names of the user here
    for node in model.graph:
        node.name = f"node {node.outputs[0].name}"
    quantized = quantize(model)
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-6)
    check(quantized.model)


def test_long_names_are_cut_and_stay_apart():
    stem = "model/" + "block/" * 40
    body = f'"{stem}a" = Conv (x, w) "{stem}b" = Conv ("{stem}a", v) y = Conv ("{stem}b", w)'
    quantized = quantize(images(body))
    names = [v.name for n in quantized.model.graph for v in n.outputs]
    names += list(quantized.model.graph.initializers)
    added = [n for n in names if n not in (f"{stem}a", f"{stem}b")]
    assert max(map(len, added)) <= 48 + len("/dequantized_2")
    assert len(set(names)) == len(names)
    check_values(quantized)


@pytest.mark.parametrize("name", ["a b", "ü/∂", "a\tb", "%12", "x:0", "[0]", "'", "a/../b"])
def test_odd_names_survive(name):
    model = load(images("y = Conv (x, w)"))
    [x], [y] = model.graph.inputs, model.graph.outputs
    x.name, y.name = name, f"{name} out"
    model.graph[0].name = f"node {name}"
    quantized = quantize(model)
    assert [v.name for v in quantized.model.graph.inputs] == [name]
    check_values(quantized)


def test_names_of_a_body_are_not_hidden():
    # the body's own 'x/scale' would hide a new tensor of that name from what is inside
    model = load("""
        g (float[1, 4, 6, 6] x, bool c) => (float[N, 4, H, W] y, float[1] z)
        <float[4, 4, 1, 1] w> {
          y = Conv (x, w)
          z = If (c) <
            then_branch = a () => (float[1] p) <float[1] "x/scale" = {3}> { p = Abs ("x/scale") },
            else_branch = e () => (float[1] q) <float[1] "y/scale" = {5}> { q = Abs ("y/scale") }>
        }""")
    quantized = quantize(model)
    inner = {n for graph in quantized.model.graph.subgraphs() for n in graph.initializers}
    assert inner
    assert not inner & set(quantized.model.graph.initializers)
    for condition in (True, False):
        feed = {"x": normal((1, 4, 6, 6)), "c": np.array(condition)}
        assert run(quantized.model, feed)[1] == [3 if condition else 5]


# -- outputs and readers -------------------------------------------------------------------------


def test_outputs_keep_their_names_and_their_order():
    body = "a = Conv (x, w, b) c = Relu (a) d = Conv (c, v) y = Conv (d, w)"
    outputs = "float[N, 4, H, W] d, float[N, 4, H, W] y, float[N, 4, H, W] a"
    quantized = quantize(images(body, outputs))
    assert [v.name for v in quantized.model.graph.outputs] == ["d", "y", "a"]
    # a is an output: the Relu after it cannot be absorbed
    assert quantized.sites.why_float.keys() == {"Relu:c"}
    check_values(quantized)


def test_an_output_that_is_read_inside_is_the_dequantized_value_in_both_places():
    quantized = quantize(
        images("t = Conv (x, w) y = Conv (t, v)", "float[N, 4, H, W] t, float[N, 4, H, W] y")
    )
    reader = of_type(quantized.model, "Conv")[1]
    assert reader.inputs[0] is quantized.model.graph.outputs[0]
    check_values(quantized)


def test_an_input_that_is_an_output_stays_what_it_is():
    quantized = quantize(images("y = Conv (x, w)", "float[N, 4, H, W] y, float[1, 4, 6, 6] x"))
    assert quantized.model.graph.outputs[1] is quantized.model.graph.inputs[0]
    feed = random_feed(quantized.source)
    np.testing.assert_array_equal(run(quantized.model, feed)[1], feed["x"])
    check_values(quantized)


def test_float_readers_of_a_float_value_read_it_unrounded():
    text = images(
        "t = Abs (x) y = Conv (t, w) z = Neg (t)", "float[N, 4, H, W] y, float[N, 4, H, W] z"
    )
    quantized = quantize(text)
    feed = random_feed(quantized.source)
    np.testing.assert_array_equal(run(quantized.model, feed)[1], -np.abs(feed["x"]))
    check_values(quantized)


def test_float_readers_of_a_site_read_what_integer_readers_read():
    text = images(
        "t = Conv (x, w) y = Conv (t, v) z = Neg (t)", "float[N, 4, H, W] y, float[N, 4, H, W] z"
    )
    quantized = quantize(text)
    assert len(of_type(quantized.model, "QuantizeLinear")) == 3
    check_values(quantized)


def test_an_output_of_a_split_that_nobody_reads_is_quantized_for_the_kernel_alone():
    declared = f"{CONV}, float[4, 2, 1, 1] k, int64[2] parts = {{2, 2}}"
    body = "t = Conv (x, w) p, q = Split <axis = 1> (t, parts) y = Conv (p, k)"
    quantized = quantize(images(body, declared=declared))
    assert quantized.coverage().unfused == ()
    unread = [v for n in quantized.model.graph for v in n.outputs if not v.uses()]
    assert [v.name for v in unread] == ["q/quantized", "y"]
    check_values(quantized)


def test_an_input_is_quantized_once_for_all_its_readers():
    text = images(
        "a = Conv (x, w) c = Conv (x, v) y = Add (a, c) z = Conv (y, w)", "float[N, 4, H, W] z"
    )
    quantized = quantize(text)
    read = [n for n in of_type(quantized.model, "QuantizeLinear") if n.inputs[0].name == "x"]
    assert len(read) == 1
    check_values(quantized)


def test_a_scalar_is_stored_as_a_code():
    declared = (
        f"{CONV}, float huge = {{99.5}}, float[1, 1, 1, 1] third = {{-0.33}}, float none = {{0}}"
    )
    body = """a = LeakyRelu <alpha = 0.25> (t) s = Add (a, huge) p = Mul (third, s)
              u = Mul (p, none)
              c = Add (s, u) y = Conv (c, v)"""
    quantized = quantize(images(f"t = Conv (x, w) {body}", declared=declared), settings=ORDINARY)
    for name, value in (("huge", 99.5), ("third", -0.33), ("none", 0.0)):
        decision = quantized.plan.tensors[name]
        codes = quantized.model.graph.initializers[f"{name}/quantized"].const_value.numpy()
        assert name not in quantized.model.graph.initializers
        # the scale divides the constant by 255: what comes back is the constant to an ulp
        assert (codes.astype(int) - decision.zero_point) * np.float32(
            decision.scale
        ) == pytest.approx(value)
    assert quantized.coverage().unfused == ()


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("tensor", ["x", "t", "r", "y", "s"])
def test_a_body_reads_what_the_main_graph_reads(tensor, condition):
    """An If that captures an input, a result with and without Relu, or an output."""
    model = load(f"""
        g (float[1, 4, 6, 6] x, bool c) => (float[N, 4, H, W] y, float[A, B, C, D] z)
        <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v> {{
          t = Conv (x, w)
          r = Relu (t)
          s = Conv (r, v)
          y = Conv (s, w)
          z = If (c) <
            then_branch = a () => (float[A, B, C, D] p) {{ p = Relu ({tensor}) }},
            else_branch = e () => (float[A, B, C, D] q) {{ q = Neg ({tensor}) }}>
        }}""")
    quantized = quantize(model, settings=Settings())
    feed = {"x": normal((1, 4, 6, 6)), "c": np.array(condition)}
    absorbed = [s.absorbed for s in quantized.sites.sites]
    assert any(absorbed) == (tensor != "t")
    by_name = _simulated(quantized, feed, (tensor, "y"))
    captured = by_name[tensor]
    expected = np.maximum(captured, 0) if condition else -captured
    check(quantized.model)
    for level in ("disabled", "all"):
        y, z = run(quantized.model, feed, level)
        np.testing.assert_array_equal(z, expected, err_msg=level)
        np.testing.assert_array_equal(y, by_name["y"], err_msg=level)


def _simulated(quantized, feed, names):
    """Simulate the main graph without its If, and return tensors by name."""
    source = quantized.source
    by_name = {v.name: v for n in source.graph for v in n.outputs}
    kept = [n for n in source.graph if n.op_type == "If"]
    wanted = [n for n in dict.fromkeys(names) if n in by_name]
    outputs = list(source.graph.outputs)
    source.graph.outputs[:] = [by_name[name] for name in wanted]
    for node in kept:
        source.graph.remove(node)
    found = dict(zip(wanted, simulate(quantized, feed), strict=True))
    for node in kept:
        source.graph.append(node)
    source.graph.outputs[:] = outputs
    return {**feed, **found}


def test_a_relu_inside_a_body_is_not_absorbed():
    model = load("""
        g (float[1, 4, 6, 6] x, bool c) => (float[A, B, C, D] z) <float[4, 4, 1, 1] w> {
          t = Conv (x, w)
          z = If (c) <
            then_branch = a () => (float[A, B, C, D] p) { p = Relu (t) },
            else_branch = e () => (float[A, B, C, D] q) {
              q = Constant <value = float[1, 1, 1, 1] {0}> () }>
        }""")
    quantized = quantize(model)
    assert [s.absorbed for s in quantized.sites.sites] == [None]
    check(quantized.model)
    feed = {"x": normal((1, 4, 6, 6)), "c": np.array(True)}
    [plain], [found] = run(quantized.source, feed), run(quantized.model, feed, "all")
    step = quantized.plan.tensors["t"].scale
    assert np.abs(plain - found).max() < 4 * step
    assert found.min() == 0


# -- weights -------------------------------------------------------------------------------------


def test_a_shared_weight_stays_shared():
    quantized = quantize(images("t = Conv (x, w, b) r = Relu (t) y = Conv (r, w)"))
    assert quantized.emitted.weights == 1
    first, second = of_type(quantized.model, "Conv")
    assert first.inputs[1] is second.inputs[1]
    assert "w" not in quantized.model.graph.initializers
    check_values(quantized)


def test_a_shared_weight_that_is_read_along_both_axes_is_quantized_along_both():
    text = """
        g (float[3, 4] x) => (float[3, M] y, float[3, N] z) <float[4, 4] w, float[4] b> {
          y = Gemm <transB = 1> (x, w, b)
          z = Gemm (x, w, b)
        }"""
    quantized = quantize(text)
    assert quantized.emitted.weights == 2
    axes = [n.attributes["axis"].value for n in of_type(quantized.model, "DequantizeLinear")
            if n.inputs[0].name.startswith("w/")]  # fmt: skip
    assert sorted(axes) == [0, 1]
    assert quantized.coverage().unfused == ()
    check_values(quantized)


def test_a_weight_that_floats_read_too_stays_for_them():
    text = images("t = Conv (x, w) y = ConvTranspose (t, w)")
    quantized = quantize(text)
    assert "w" in quantized.model.graph.initializers
    check(quantized.model)


def test_codes_are_int8_whatever_the_symmetry():
    for symmetric in (True, False):
        quantized = quantize(
            images("y = Conv (x, w)"), settings=Settings(weights_symmetric=symmetric)
        )
        for name in ("w/quantized", "w/zero_point"):
            tensor = quantized.model.graph.initializers[name].const_value
            assert tensor.dtype == ir.DataType.INT8


def test_a_weight_that_is_not_finite_is_an_error_with_its_name():
    weights = {"w": np.full((4, 4, 1, 1), np.nan, np.float32)}
    with pytest.raises(CalibrationError, match="weight 'w' of 'Conv:y': takes a NaN"):
        quantize(images("y = Conv (x, w)"), weights, feeds=[{"x": normal((1, 4, 6, 6))}],
                 decisions=quantize(images("y = Conv (x, w)")).plan.tensors)  # fmt: skip


@given(seed=st.integers(0, 10**6), transposed=st.booleans())
def test_asymmetric_weights_are_exact_in_integers(seed, transposed):
    """The integer Gemm against sums of (a - za)(w - zw) over whole numbers."""
    rng = np.random.default_rng(seed)
    w = (rng.standard_normal((6, 5)) * rng.uniform(0.1, 3, 5) + rng.uniform(-1, 1, 5)).astype(
        np.float32
    )
    text = f"""
        g (float[7, 6] x) => (float[7, 5] y) <float[{"5, 6" if transposed else "6, 5"}] w> {{
          y = Gemm <transB = {int(transposed)}> (x, w)
        }}"""
    settings = Settings(
        calib="minmax", weight_method="minmax", symmetric=False, weights_symmetric=False
    )
    feed = {"x": (rng.standard_normal((7, 6)) + 0.3).astype(np.float32)}
    quantized = quantize(
        text, {"w": w.T.copy() if transposed else w}, feeds=[feed], settings=settings
    )
    constants = quantized.model.graph.initializers
    codes, zero_point, scale = (
        constants[f"w/{part}"].const_value.numpy() for part in ("quantized", "zero_point", "scale")
    )
    assert np.unique(zero_point).size > 1
    codes = codes.T if transposed else codes
    decision = quantized.plan.tensors["x"]
    rounded = np.rint(feed["x"] / np.float32(decision.scale)) + decision.zero_point
    a = np.clip(rounded, 0, 255).astype(np.int64) - decision.zero_point
    total = a @ (codes.astype(np.int64) - zero_point.astype(np.int64))
    expected = total * (np.float32(decision.scale).astype(np.float64) * scale)
    [found] = run(quantized.model, feed, "all")
    # the sum is exact; it is then scaled in float32: three roundings
    np.testing.assert_allclose(found, expected, rtol=4e-7, atol=1e-12)


# -- biases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [True, False])
@given(seed=st.integers(0, 999), spread=st.floats(1e-3, 1e3))
def test_bias_codes_are_rounded_at_the_scale_of_the_products(per_channel, seed, spread):
    weights = {"b": normal((4,), seed, spread), "w": normal((4, 4, 1, 1), seed + 1)}
    settings = Settings(calib="minmax", weight_method="minmax", per_channel=per_channel)
    quantized = quantize(images("y = Conv (x, w, b)"), weights, settings=settings)
    constants = quantized.model.graph.initializers
    bias, scale = (
        constants[f"b/Conv:y/{part}"].const_value.numpy() for part in ("quantized", "scale")
    )
    of_weight = constants["w/scale"].const_value.numpy()
    of_input = np.float32(quantized.plan.tensors["x"].scale)
    assert bias.dtype == np.int32
    np.testing.assert_array_equal(scale, of_input * of_weight)
    exact = weights["b"].astype(np.float64) / (of_input * of_weight)
    np.testing.assert_array_equal(bias, np.rint(exact))
    assert quantized.emitted.biases == 1
    assert quantized.emitted.widened == ()


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_bias_beyond_int32_widens_the_weight(per_channel):
    """ALGORITHMS trap T4: nearly dead weights and a bias of ordinary size."""
    weights = {"w": normal((4, 4, 1, 1), 1), "b": np.array([5, -3, 2, 0], np.float32)}
    weights["w"][0 if per_channel else slice(None)] *= 1e-9
    quantized = quantize(
        images("t = Conv (x, w, b) y = Conv (t, v)"), weights,
        settings=Settings(calib="minmax", weight_method="minmax", per_channel=per_channel),
    )  # fmt: skip
    assert quantized.emitted.widened == ("Conv:t",)
    codes = quantized.model.graph.initializers["b/Conv:t/quantized"].const_value.numpy()
    assert np.abs(codes.astype(np.int64)).max() <= 2**30
    feed = random_feed(quantized.source)
    plain = run(quantized.source, feed)[0]
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)[0]
        # some steps of the output; a saturated bias is off by 25 and more
        assert np.abs(found - plain).max() < 4 * quantized.plan.tensors["y"].scale


def test_widening_leaves_the_other_channels_and_the_other_readers_alone():
    weights = {"w": normal((4, 4, 1, 1), 1), "b": np.array([5, 0, 0, 0], np.float32)}
    weights["w"][0] = 1e-9
    settings = Settings(calib="minmax", weight_method="minmax")
    alone = quantize(images("y = Conv (x, w)"), weights, settings=settings)
    text = images(
        "t = Conv (x, w) s = Conv (x, w, b) y = Add (t, s) z = Conv (y, v)", "float[N, 4, H, W] z"
    )
    quantized = quantize(text, weights, settings=settings)
    read = [n.inputs[1].producer().inputs for n in of_type(quantized.model, "Conv")[:2]]
    unwidened, widened = ([v.const_value.numpy() for v in inputs] for inputs in read)
    expected = [
        v.const_value.numpy() for v in of_type(alone.model, "Conv")[0].inputs[1].producer().inputs
    ]
    np.testing.assert_array_equal(unwidened[1], expected[1])
    np.testing.assert_array_equal(widened[1][1:], expected[1][1:])
    np.testing.assert_array_equal(widened[0][1:], expected[0][1:])
    assert widened[1][0] > expected[1][0]


def test_a_bias_coarser_than_the_output_is_counted():
    # the input is huge, the weight moves it a little: a step of the bias is wider than one of y
    weights = {
        "w": np.eye(4, dtype=np.float32)[:, :, None, None] * 1e-3,
        "b": np.ones(4, np.float32),
    }
    weights["w"][0, 1] = 1000.0
    feed = {"x": normal((1, 4, 6, 6), 0) * 0 + np.array([1, 0, 1, 1], np.float32)[:, None, None]}
    feed["x"][0, 1, 0, 0] = 1e-6
    quantized = quantize(
        images("y = Conv (x, w, b)"), weights, feeds=[feed],
        settings=Settings(calib="minmax", weight_method="minmax", per_channel=False),
    )  # fmt: skip
    assert quantized.emitted.coarse == ("Conv:y",)
    weights["b"][:] = 0  # zero is exact, however coarse
    of_zeros = quantize(
        images("y = Conv (x, w, b)"), weights, feeds=[feed],
        settings=Settings(calib="minmax", weight_method="minmax", per_channel=False),
    )  # fmt: skip
    assert of_zeros.emitted.coarse == ()
    fine = quantize(images("y = Conv (x, w, b)"))
    assert fine.emitted.coarse == ()


def test_a_bias_of_zeros_is_never_too_coarse_or_too_large():
    weights = {"w": normal((4, 4, 1, 1), 1, 1e-20), "b": np.zeros(4, np.float32)}
    feed = {"x": normal((1, 4, 6, 6), 0, 1e-20)}
    quantized = quantize(
        images("y = Conv (x, w, b)"), weights, feeds=[feed],
        settings=Settings(calib="minmax", weight_method="minmax"),
    )  # fmt: skip
    assert quantized.emitted.widened == quantized.emitted.coarse == ()
    codes = quantized.model.graph.initializers["b/Conv:y/quantized"].const_value.numpy()
    np.testing.assert_array_equal(codes, 0)
    for level in ("disabled", "all"):
        assert np.abs(run(quantized.model, feed, level)[0]).max() < 1e-6


def test_inner_types_are_left_to_inference():
    quantized = quantize(images("t = Conv (x, w) y = Conv (t, v)"))
    assert ir.to_proto(quantized.model).graph.value_info == []
