"""A comparison layer by layer: against brute force, and what it must not depend on."""

import math

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from support.models import write

import ptq
from ptq.comparing import CompareOptions, compare, compare_feeds
from ptq.data import open_dataset
from ptq.errors import ConfigError, DataError
from ptq.graph.save import save_model
from ptq.numerics.metrics import sqnr_db
from ptq.report.comparison import proposed
from ptq.source import open_source

SAMPLES = 24

#: onnxruntime's integer kernels round a few values to the code beside the reference's.
DECIBELS = 0.1


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """The small network as QDQ and as fused operators, of one plan."""
    output = tmp_path_factory.mktemp("made") / "q.onnx"
    options = ptq.RunOptions(output=output, samples=32, seconds=0.01, threads=2)
    config = ptq.QuantizeConfig(format="both", place=("all",))
    ptq.quantize(digits.model, digits.calibration, config, options=options)
    return {"qdq": output, "integer": output.with_name("q.integer.onnx")}


@pytest.fixture(scope="module")
def found(digits, made):
    return compare(digits.model, made["qdq"], digits.evaluation, CompareOptions(samples=SAMPLES))


def by_tensor(found):
    return {layer.tensor: layer for layer in found.layers}


def feeds_of(digits, samples=SAMPLES):
    source = open_source(digits.model)
    return list(open_dataset(digits.evaluation, source.inputs, samples=samples))


def figures(found):
    """Everything that is a number of decibels, equal tensors as infinity."""
    numbers = [
        number
        for layer in found.layers
        for number in (layer.sqnr_db, layer.isolated_sqnr_db, layer.mean_shift, layer.max_abs)
    ]
    return [math.inf if number is None else number for number in numbers]


def with_outputs(model, names):
    """Return an evaluator of the standard's own implementation that gives these tensors."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return ReferenceEvaluator(model)


@pytest.fixture(scope="module")
def truth(digits, made, found, tmp_path_factory):
    """Each compared tensor in the float model and in the QDQ file, by the standard's reference."""
    prepared = tmp_path_factory.mktemp("prepared") / "prepared.onnx"
    save_model(open_source(digits.model).model, prepared)
    names = list(by_tensor(found))
    both = [with_outputs(onnx.load(path), names) for path in (prepared, made["qdq"])]
    runs = [[model.run(None, feed) for feed in feeds_of(digits)] for model in both]
    return {
        name: tuple(np.stack([outputs[i] for outputs in run]) for run in runs)
        for i, name in enumerate(names)
    }


def test_accumulated_errors_are_those_of_the_reference_implementation(found, truth):
    assert len(found.layers) > 10
    for tensor, layer in by_tensor(found).items():
        if tensor == "input":
            continue
        ref, out = truth[tensor]
        assert layer.sqnr_db == pytest.approx(sqnr_db(ref, out), abs=DECIBELS)
        assert layer.rms == pytest.approx(np.sqrt(np.mean(ref.astype(float) ** 2)), rel=1e-5)
        # half a step of one value in a hundred moves the mean by less
        error = np.mean(out.astype(float) - ref)
        assert layer.mean_shift == pytest.approx(error, abs=2e-3 * layer.rms)


def test_isolated_errors_are_those_of_each_layer_cut_out_by_itself(digits, made, found, truth):
    model = onnx.load(made["qdq"])
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    compared = by_tensor(found)

    def quantized(tensor):
        """The float model's tensor behind the file's QuantizeLinear and DequantizeLinear."""
        ref, dequantize = truth[tensor][0], makers.get(tensor)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return ref
        scale, zero_point = (constants[name] for name in dequantize.input[1:])
        limits = np.iinfo(zero_point.dtype)
        codes = np.clip(np.rint(ref / scale) + zero_point, limits.min, limits.max)
        return ((codes - zero_point) * scale).astype(np.float32)

    checked = 0
    for tensor, layer in compared.items():
        if tensor == "input" or layer.isolated_sqnr_db is None:
            continue
        read, pending = [], [*makers[tensor].input]
        while pending:
            name = pending.pop()
            if name in compared:
                read.append(name)
            elif name in makers:
                pending += makers[name].input
        extractor = onnx.utils.Extractor(model)
        extractor.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, truth[n][0].shape[1:])
            for n in {*read, tensor}
        )
        alone = ReferenceEvaluator(
            onnx.utils.Extractor(extractor.model).extract_model(sorted(set(read)), [tensor])
        )
        values = {name: quantized(name) for name in read}
        out = [alone.run(None, {n: v[i] for n, v in values.items()})[0] for i in range(SAMPLES)]
        expected = sqnr_db(truth[tensor][0], np.stack(out))
        assert layer.isolated_sqnr_db == pytest.approx(expected, abs=DECIBELS), tensor
        checked += 1
    assert checked > 10


def test_the_first_layer_has_accumulated_its_own_error_only(found):
    first = next(layer for layer in found.layers if layer.op_type == "Conv")
    assert first.isolated_sqnr_db == first.sqnr_db
    assert any(layer.isolated_sqnr_db > layer.sqnr_db + 1 for layer in found.layers)


def test_layers_name_their_nodes_and_outputs_are_flagged(found):
    layers = by_tensor(found)
    assert [name for name, layer in layers.items() if layer.output] == ["logits"]
    merged = [layer for layer in found.layers if len(layer.nodes) > 1]
    assert merged, "the network has a Relu after a Conv"
    assert all(layer.op_type == "Conv" and layer.at_fault == (layer.node,) for layer in merged)


def test_a_copy_of_the_float_model_is_equal(digits, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(digits.model.read_bytes())
    found = compare(digits.model, copy, digits.evaluation, CompareOptions(samples=4))
    assert len(found.layers) > 10
    assert {layer.sqnr_db for layer in found.layers} == {None}
    # the cut model is merged in another way, which moves the last bits of some float32
    assert all((layer.isolated_sqnr_db or 999) > 120 for layer in found.layers)
    assert {layer.cosine for layer in found.layers} == {1.0}
    assert proposed(found) == ()
    assert found.notices == ("the second model holds no integers: it is no quantized model",)


@pytest.mark.parametrize("memory_bytes", [1, 3000, 20_000])
def test_figures_do_not_depend_on_how_many_tensors_are_held_at_once(
    digits, made, found, memory_bytes
):
    options = CompareOptions(samples=SAMPLES, memory_bytes=memory_bytes)
    again = compare(digits.model, made["qdq"], digits.evaluation, options)
    # of a part of the graph, onnxruntime may merge float operators in another way
    assert figures(again) == pytest.approx(figures(found), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_figures_do_not_depend_on_the_order_of_the_feeds(digits, made, found, threads):
    feeds = feeds_of(digits)[::-1]
    options = CompareOptions(threads=threads)
    again = compare_feeds(open_source(digits.model), made["qdq"], lambda: iter(feeds), options)
    assert again.samples == SAMPLES
    # sums of float64, in another order
    assert figures(again) == pytest.approx(figures(found), rel=1e-9, abs=1e-12)


def test_fused_operators_have_the_errors_of_the_qdq_file(digits, made, found):
    options = CompareOptions(samples=SAMPLES)
    other = by_tensor(compare(digits.model, made["integer"], digits.evaluation, options))
    layers = by_tensor(found)
    codes = {name for name, layer in layers.items() if layer.quantized}
    assert len(codes & set(other)) == len(codes)
    for name in codes:
        assert other[name].sqnr_db == pytest.approx(layers[name].sqnr_db, abs=2 * DECIBELS)
        isolated = layers[name].isolated_sqnr_db
        assert other[name].isolated_sqnr_db == pytest.approx(isolated, abs=2 * DECIBELS)
        assert other[name].clip_share == layers[name].clip_share


def test_weights_may_lie_in_other_files(digits, made, found, tmp_path):
    paths = [tmp_path / "float.onnx", tmp_path / "quantized.onnx"]
    for source, path in zip((digits.model, made["qdq"]), paths, strict=True):
        location = f"{path.name}.data"
        onnx.save(
            onnx.load(source), path, save_as_external_data=True, location=location, size_threshold=0
        )
    again = compare(*paths, digits.evaluation, CompareOptions(samples=SAMPLES))
    assert figures(again) == figures(found)


class Reader(ort_quantization.CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("folded", [True, False])
def test_models_of_onnxruntimes_quantizer_are_compared(digits, tmp_path, form, folded):
    model = digits.model
    if folded:
        model = tmp_path / "prepared.onnx"
        save_model(open_source(digits.model).model, model)
    output = tmp_path / "other.onnx"
    ort_quantization.quantize_static(
        model,
        output,
        Reader(feeds_of(digits, 16)),
        quant_format=ort_quantization.QuantFormat[form],
        activation_type=ort_quantization.QuantType.QUInt8,
    )
    found = compare(digits.model, output, digits.evaluation, CompareOptions(samples=SAMPLES))
    layers = by_tensor(found)
    assert sum(layer.quantized for layer in found.layers) > 8
    assert layers["logits"].output
    # the codes of a Relu that was removed, taken for what the Relu read, would be below 10 dB
    assert all(
        layer.isolated_sqnr_db is None or layer.isolated_sqnr_db > 16 for layer in found.layers
    )
    assert removed(model, output) or not folded
    assert not removed(model, output) & set(layers)


def removed(model, quantized):
    """Return what a Relu or Clip reads of which the quantized file has nothing left."""
    left = {node.name for node in onnx.load(quantized).graph.node}
    nodes = [n for n in onnx.load(model).graph.node if n.op_type in ("Relu", "Clip")]
    return {n.input[0] for n in nodes if n.name not in left and f"{n.name}_quant" not in left}


@pytest.mark.parametrize("format_", ["qdq", "integer"])
@pytest.mark.parametrize(("scheme", "bits"), [("dynamic", 8), ("weight-only", 4)])
def test_models_without_activation_scales_are_compared(digits, tmp_path, scheme, bits, format_):
    output = tmp_path / "q.onnx"
    config = ptq.QuantizeConfig(
        scheme=scheme, bits=bits, format=format_, place=("all",), allow_larger=True
    )
    ptq.quantize(digits.model, None, config, options=ptq.RunOptions(output=output, seconds=0.01))
    found = compare(digits.model, output, digits.evaluation, CompareOptions(samples=8))
    assert not any(layer.quantized for layer in found.layers)
    lossy = [layer for layer in found.layers if layer.isolated_sqnr_db is not None]
    assert {layer.op_type for layer in lossy} <= {"Conv", "Gemm", "MatMul"}
    assert 1 <= len(lossy) < len(found.layers)
    assert proposed(found)[0] in {layer.node for layer in lossy}


def test_a_layer_that_is_broken_is_found_and_no_other_blamed(digits, made, found, tmp_path):
    model = onnx.load(made["qdq"])
    convolutions = [layer for layer in found.layers if layer.op_type == "Conv"]
    victim = convolutions[1]
    node = next(n for n in model.graph.node if n.name == victim.node)
    dequantize = next(n for n in model.graph.node if node.input[1] in n.output)
    scale = next(i for i in model.graph.initializer if i.name == dequantize.input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 1.5, scale.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    again = compare(digits.model, broken, digits.evaluation, CompareOptions(samples=SAMPLES))
    assert proposed(again)[0] == victim.node
    now, before = by_tensor(again), by_tensor(found)
    for tensor, layer in before.items():
        if tensor != victim.tensor:
            assert now[tensor].isolated_sqnr_db == layer.isolated_sqnr_db
    assert now["logits"].sqnr_db < before["logits"].sqnr_db - 3


LOG = "g (float[N,4] x) => (float[N,4] y) { y = Log (x) }"
LOG_OF_CODES = """<ir_version: 8, opset_import: ["" : 21]>
g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint8 z = {0}> {
    q = QuantizeLinear (x, s, z) r = DequantizeLinear (q, s, z) y = Log (r)
}"""


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path):
    reference = write(tmp_path / "f.onnx", LOG)
    quantized = write(tmp_path / "q.onnx", LOG_OF_CODES)
    np.save(tmp_path / "x.npy", np.array([[0.01, 1, 2, 3]], np.float32))
    np.savez(tmp_path / "x.npz", x=np.array([[0.01, 1.02, 2, 3]], np.float32))
    found = compare(reference, quantized, tmp_path / "x.npz")
    layer = by_tensor(found)["y"]
    assert layer.nonfinite == 1
    assert layer.max_abs == pytest.approx(math.log(1.02), rel=1e-5)  # 1.02 becomes 1.0
    assert "1 tensors" in found.notices[0] or "'y'" in found.notices[0]
    assert found.to_json()


def test_clipped_values_are_those_beyond_half_a_step(tmp_path):
    reference = write(tmp_path / "f.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Exp (x) }")
    quantized = write(tmp_path / "q.onnx", LOG_OF_CODES.replace("Log", "Exp"))
    # codes stand for 0..25.5
    np.savez(tmp_path / "x.npz", x=np.array([[25.54, 25.56, -0.04, -0.06]], np.float32))
    found = compare(reference, quantized, tmp_path / "x.npz")
    assert by_tensor(found)["x"].clip_share == 0.5


IF = """g (float[4] x, bool c) => (float[4] y) {
    a = Neg (x)
    b = If (c) <
        then_branch = t () => (float[4] u) { u = Abs (a) },
        else_branch = e () => (float[4] v) { v1 = Exp (a) v = Neg (v1) }
    >
    y = Neg (b)
}"""


def test_bodies_are_passed_over_with_a_notice(tmp_path):
    reference = write(tmp_path / "f.onnx", IF)
    quantized = write(tmp_path / "q.onnx", IF)
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32), c=np.array([True, False, True]))
    found = compare(reference, quantized, tmp_path / "x.npz")
    assert set(by_tensor(found)) == {"a", "b", "y"}
    assert "3 nodes inside If, Loop or Scan are compared only by what they put out" in found.notices


def test_other_inputs_are_refused(digits, tmp_path):
    other = write(tmp_path / "o.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Neg (x) }")
    with pytest.raises(ConfigError, match="only models with the same inputs can be compared"):
        compare(digits.model, other, digits.evaluation)


def test_models_without_a_common_tensor_are_refused(tmp_path):
    one = write(tmp_path / "a.onnx", "g (float[N,4] x) => (float[N,4] y) { y = Neg (x) }")
    other = write(tmp_path / "b.onnx", "g (float[N,4] x) => (float[N,4] z) { z = Neg (x) }")
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32))
    with pytest.raises(ConfigError, match="share no tensor"):
        compare(one, other, tmp_path / "x.npz")


def test_no_feed_is_refused(digits, made):
    with pytest.raises(DataError, match="no sample"):
        compare_feeds(open_source(digits.model), made["qdq"], lambda: iter(()))


@pytest.mark.parametrize("memory_bytes", [1 << 20, 20_000])
def test_progress_counts_every_feed_of_every_pass(digits, made, memory_bytes):
    steps = []
    options = CompareOptions(samples=5, memory_bytes=memory_bytes, on_progress=steps.append)
    compare(digits.model, made["qdq"], digits.evaluation, options)
    counted = [step for step in steps if step.stage == "compare"]
    assert [step.done for step in counted] == list(range(len(counted)))
    assert counted[-1].done == counted[-1].total
    assert (counted[-1].total > 5) == (memory_bytes < 1 << 20)
    assert counted[-1].total % 5 == 0


def test_an_open_data_set_and_an_open_model_are_taken_as_they_are(digits, made, found):
    source = open_source(digits.model)
    data = open_dataset(digits.evaluation, source.inputs, samples=SAMPLES)
    again = compare(source, made["qdq"], data, CompareOptions(samples=None))
    assert figures(again) == figures(found)
    assert compare(source, made["qdq"], data, CompareOptions(samples=3)).samples == 3


def test_samples_must_be_some():
    with pytest.raises(ConfigError, match="1 or more"):
        CompareOptions(samples=0)
