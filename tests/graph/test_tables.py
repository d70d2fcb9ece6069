"""Embeddings are looked up as codes: a quarter of the size, and the rounded values."""

from dataclasses import replace

import numpy as np
import pytest
from support.models import load
from support.nets import ORDINARY, check, normal, quantize, run

ROWS, COLUMNS = 300, 64

#: Columns of very different size, as embeddings have them.
TABLE = normal((ROWS, COLUMNS), 1) * np.geomspace(0.01, 10, COLUMNS).astype(np.float32)

DECLARED = f"""float[{ROWS}, {COLUMNS}] table, float[{COLUMNS}, 8] w, float[64, 64] small,
    float[20, 20, 64] cube, int64[2] shape = {{-1, {COLUMNS}}}"""

LOOKUP = "e = Gather (table, i) y = MatMul (e, w)"


def model(body=LOOKUP, outputs="float[A, B, C] y"):
    return f"g (int64[1, 5] i, float[5, 64] x) => ({outputs}) <{DECLARED}> {{ {body} }}"


def embedded(body=LOOKUP, settings=ORDINARY, outputs="float[A, B, C] y"):
    return quantize(model(body, outputs), {"table": TABLE}, feeds=[feed()], settings=settings)


def feed(seed=0):
    rng = np.random.default_rng(seed)
    indices = rng.integers(-ROWS, ROWS, (1, 5))
    return {"i": indices, "x": normal((5, 64), seed)}


def test_what_is_looked_up_is_the_rounded_row():
    quantized = embedded(outputs="float[A, B, C] y, float[D, E, F] e")
    found = run(quantized.model, feed(3))[1]
    scale = np.abs(TABLE).max(axis=0) / np.float32(127)
    rounded = (np.rint(TABLE / scale) * scale).astype(np.float32)
    np.testing.assert_allclose(found, rounded[feed(3)["i"]], rtol=1e-6)
    np.testing.assert_array_equal(run(quantized.model, feed(3), "all")[1], found)
    check(quantized.model)


def test_the_table_is_stored_as_codes_and_never_dequantized_whole():
    quantized = embedded()
    initializers = quantized.model.graph.initializers
    assert "table" not in initializers
    [codes] = [v for v in initializers.values() if v.const_value.size == TABLE.size]
    assert codes.const_value.numpy().dtype == np.int8
    assert [n.op_type for n in codes.consumers()] == ["Gather"]
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert coverage.integer["Gather"] == 1
    assert quantized.emitted.weights == 2


def test_one_scale_for_the_table_if_weights_have_one():
    quantized = embedded(settings=replace(ORDINARY, per_channel=False))
    gather = next(n for n in quantized.model.graph if n.op_type == "Gather")
    [after] = gather.outputs[0].consumers()
    assert after.op_type == "DequantizeLinear"
    assert after.inputs[1].const_value.size == 1
    assert run(quantized.model, feed())[0].shape == (1, 5, 8)


def test_zero_points_if_weights_have_them():
    settings = replace(ORDINARY, weights_symmetric=False)
    body = "e = Gather (table, i) y = Neg (e)"
    positive = {"table": np.abs(TABLE)}
    quantized = quantize(model(body), positive, feeds=[feed()], settings=settings)
    found, wanted = (run(m, feed())[0] for m in (quantized.model, quantized.source))
    step = np.abs(TABLE).max(axis=0) / 255
    assert np.all(np.abs(found - wanted) <= 0.51 * step)


def test_two_lookups_share_the_codes():
    body = (
        "e = Gather (table, i) f = Gather (table, i) h = Neg (f) s = Add (e, h) y = MatMul (s, w)"
    )
    # merged into one by the prepare passes unless the attributes differ
    quantized = embedded(body.replace("f = Gather", "f = Gather <axis = -2>"))
    kept = [n for n in quantized.model.graph.initializers if n.startswith("table")]
    assert len([n for n in kept if n.endswith("quantized")]) <= 1


def test_a_table_that_is_a_weight_too_is_stored_as_codes_twice():
    body = "e = Gather (table, i) z = Gemm <transB = 1> (x, table) y = MatMul (e, w)"
    quantized = embedded(body, outputs="float[A, B, C] y, float[D, E] z")
    assert {s.node.op_type for s in quantized.sites.sites} == {"Gather", "Gemm", "MatMul"}
    assert "table" not in quantized.model.graph.initializers
    assert quantized.coverage().unfused == ()


@pytest.mark.parametrize(
    ("lookup", "why"),
    [
        (
            "e = Gather (table, i) m = ReduceMax <keepdims = 0> (x) z = Mul (table, m)",
            "the table is read in float, too",
        ),
        ("e = Gather (small, i) z = Neg (x)", "a table so small is not worth it"),
        ("e = Gather (cube, i) z = Neg (x)", "only rows of a matrix are looked up as codes"),
        ("e = Gather <axis = 1> (table, i) z = Neg (x)", "only rows of a matrix are looked up"),
        ("e = Gather (x, i) z = Neg (x)", "the table is not constant"),
        ("e = Gather (ints, i) z = Neg (x)", "the table is INT64, not float32"),
    ],
)
def test_what_stays_as_it_is(lookup, why):
    body = f"{lookup} c = Cast <to = 1> (e) p = Neg (c) y = MatMul (x, w)"
    text = model(body, "float[5, 8] y, float[D, E] z, float[R] p")
    text = text.replace("int64[2] shape", "int64[300, 64] ints, int64[2] shape")
    source = load(text, {"table": TABLE})
    source.graph.outputs[2].shape = None
    zeros = {**feed(), "i": np.zeros((1, 5), np.int64)}
    quantized = quantize(source, feeds=[zeros], settings=ORDINARY)
    assert quantized.sites.why_float["Gather:e"].startswith(why)
    assert all(s.node.op_type != "Gather" for s in quantized.sites.sites)


def test_a_lookup_that_is_kept_in_float_stays():
    settings = replace(ORDINARY, keep_float=(("Gather:e", "kept"),))
    quantized = embedded(settings=settings)
    assert "table" in quantized.model.graph.initializers
    assert quantized.sites.why_float["Gather:e"] == "kept"
