"""An override changes what it says in the file that is written, and nothing else."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.models import write

import ptq
from ptq import Override
from ptq.errors import ConfigError
from ptq.inspection import inspect_quantized
from ptq.options import RunOptions


@pytest.fixture
def run(digits, tmp_path):
    """Quantize the small network with these overrides."""

    def quantize(*overrides, **settings):
        config = ptq.QuantizeConfig(place=("all",), overrides=overrides, **settings)
        options = RunOptions(output=tmp_path / "out.onnx", force=True)
        return ptq.quantize(digits.model, digits.calibration, config, options=options)

    return quantize


def constants(path):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def changed(before, after):
    """Return the names of the constants that differ, or are in one only."""
    a, b = before, after
    same = {n for n in a.keys() & b.keys() if np.array_equal(a[n], b[n])}
    return (a.keys() | b.keys()) - same


def test_a_node_in_float_is_float_and_says_why(run):
    plan = run(Override(match="dense.conv", float=True)).plan
    nodes = {n.name: n for n in plan.nodes}
    assert (nodes["dense.conv"].integer, nodes["dense.conv"].why) == (
        False,
        "kept in float by an override",
    )
    others = [n for n in plan.nodes if n.op_type == "Conv" and n.name != "dense.conv"]
    assert all(n.integer for n in others)


@pytest.mark.parametrize("method", ["mse", "qcode"])
def test_a_range_method_changes_its_tensor_and_what_depends_on_its_scale(run, method):
    general, found = run(), run(Override(match="head.conv", calib=method))
    [tensor] = [
        name
        for name, decision in found.plan.tensors.items()
        if decision.scale != general.plan.tensors[name].scale
    ]
    alone = run(calib=method).plan.tensors[tensor]
    assert found.plan.tensors[tensor] == alone
    assert found.plan.nodes == general.plan.nodes


def test_weights_of_one_node_get_one_scale(run):
    before = constants(run().output)
    after = constants(run(Override(match="dense.conv", weights="per-tensor")).output)
    [scale] = [n for n in after if n.startswith("dense") and n.endswith("weight/scale")]
    assert before[scale].ndim == 1
    assert after[scale].ndim == 0
    assert all(name.startswith("dense.") for name in changed(before, after))


def test_the_range_method_of_one_weight_is_that_of_all_with_it(run):
    before, everywhere = (constants(run(weight_method=m).output) for m in ("", "mse"))
    after = constants(run(Override(match="stem.conv", weight_method="mse")).output)
    differing = changed(before, after)
    assert differing
    assert all(name.startswith("stem.") for name in differing)
    assert all(np.array_equal(after[name], everywhere[name]) for name in differing)


def test_the_output_search_leaves_a_tensor_with_a_method_of_its_own_alone(run):
    settings = {"calib": "qcode", "qcode_objective": "output"}
    found = run(Override(match="head.conv", calib="minmax"), **settings).plan.tensors
    alone = run(calib="minmax").plan.tensors
    own = {n for n, d in found.items() if d == alone[n]}
    assert len(own) == 1
    assert all(np.frexp(d.scale)[0] == 0.5 for n, d in found.items() if n not in own)


def test_dynamic_takes_float_and_the_weights_of_a_node(run):
    before = constants(run(scheme="dynamic").output)
    after = constants(run(Override(match="logits", weights="per-tensor"), scheme="dynamic").output)
    assert changed(before, after) == {"classifier.weight/codes", "classifier.weight/scale"}
    assert after["classifier.weight/scale"].ndim == 0
    plan = run(Override(match="logits", float=True), scheme="dynamic").plan
    assert {n.name: n.why for n in plan.nodes}["logits"] == "kept in float by an override"


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_bits_differ_from_node_to_node_in_one_file(tmp_path, form):
    text = """g (float[2, 64] x, int64[2] i) => (float[2, 64] y) <float[64, 64] w8,
        float[64, 64] w4, float[64, 64] w2, float[64, 64] table>
        { a = MatMul (x, w8) b = MatMul (a, w4) c = MatMul (b, w2) t = Gather (table, i)
          y = Add (c, t) }"""
    model = write(tmp_path / "m.onnx", text)

    def quantize(*overrides, bits=8):
        config = ptq.QuantizeConfig(
            scheme="weight-only", bits=bits, format=form, overrides=overrides
        )
        options = RunOptions(output=tmp_path / "q.onnx", force=True)
        return constants(ptq.quantize(model, None, config, options=options).output)

    mixed = quantize(
        Override(op="MatMul", bits=4),
        Override(match="a", bits=8),
        Override(match="w2", bits=2),
        Override(op="Gather", bits=4),
    )
    alike = {bits: quantize(bits=bits) for bits in (8, 4, 2)}
    for weight, bits in (("w8", 8), ("w4", 4), ("w2", 2), ("table", 4)):
        parts = {n for n in mixed if n.startswith(f"{weight}/")}
        assert parts == {n for n in alike[bits] if n.startswith(f"{weight}/")} != set()
        assert all(np.array_equal(mixed[n], alike[bits][n]) for n in parts)


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight-only"])
def test_an_override_that_matches_nothing_is_an_error_in_every_scheme(run, scheme):
    with pytest.raises(ConfigError, match=r"override .stm\.conv. matches no node"):
        run(Override(match="stm.conv", float=True), scheme=scheme)


def test_inspect_says_what_each_override_matches(digits):
    overrides = (
        Override(match="stem.*", float=True),
        Override(op="Conv", weight_method="mse"),
    )
    found = ptq.inspect(digits.model, ptq.QuantizeConfig(overrides=overrides))
    assert [(e.override, e.changes, e.nodes) for e in found.overrides] == [
        ("'stem.*'", {"float": True}, 2),
        ("of Conv '*'", {"weight_method": "mse"}, 12),
    ]
    assert {n.name: n.why for n in found.nodes}["stem.conv"] == "kept in float by an override"


def test_inspect_says_why_a_layer_of_a_quantized_model_is_in_float(digits, tmp_path):
    options = RunOptions(
        output=tmp_path / "q.onnx", placement=ptq.PinnedPlacement(keep_float=("head.conv",))
    )
    config = ptq.QuantizeConfig(overrides=(Override(match="stem.*", op="Conv", float=True),))
    done = ptq.quantize(digits.model, digits.calibration, config, options=options)
    found = inspect_quantized(done.output)
    why = {layer.name: layer.why for layer in found.layers if not layer.integer}
    assert why["stem.conv"] == "kept in float by an override"
    assert why["head.conv"] == "kept in float when it was placed"


def test_inspect_foresees_the_size_with_other_bits(digits):
    def bytes_with(*overrides):
        config = ptq.QuantizeConfig(scheme="weight-only", overrides=overrides)
        return ptq.inspect(digits.model, config).predicted_bytes

    one, all_of_them = Override(match="dense.conv", bits=4), Override(bits=4)
    assert bytes_with() > bytes_with(one) > bytes_with(all_of_them)
