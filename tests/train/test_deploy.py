"""What is trained is what is deployed: the integer model answers as the training graph does."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ptq.config import QuantizeConfig
from ptq.data import open_dataset
from ptq.errors import VerificationError
from ptq.finetuning import Trainable
from ptq.graph.save import to_bytes
from ptq.inputs import Inputs
from ptq.plan.replace import with_decisions
from ptq.progress import Stages
from ptq.refining import Refined
from ptq.runtime.session import open_session, run
from ptq.source import open_source
from ptq.train.deploy import deploy
from ptq.train.fakequant import QAT_METHODS
from ptq.train.graphs import choose_targets, evaluation_graph
from ptq.train.manifest import Loss
from ptq.version import Version
from ptq.work import Work

MODELS = Path(__file__).resolve().parent.parent / "models"

METHODS = list(QAT_METHODS.methods())


@cache
def prepared() -> tuple[Work, Version, Path]:
    """Return a quantization of the digits network to W4A4, written once."""
    import tempfile

    source = open_source(MODELS / "digits_cnn.onnx")
    data = open_dataset(str(MODELS / "digits_calib.npz"), source.inputs, samples=32)
    config = QuantizeConfig(
        bits=4, activation_bits=4, calib="mse", target="ort-cpu-x86-avx2", fine_tune="pact"
    )
    work = Work(source, Inputs(calibration=data), config, Stages(), 1)
    folder = Path(tempfile.mkdtemp())
    return work, work.write(folder / "ptq.onnx", "qdq"), folder


def trainable_by(method: str) -> Trainable:
    work, version, _ = prepared()
    config = QuantizeConfig(
        bits=4, activation_bits=4, calib="mse", target=work.config.target, fine_tune=method
    )
    other = Work(work.source, work.inputs, config, work.stages, 1)
    other.calibration = work.calibration
    return other.trainable(version, Refined())


def moved(trainable: Trainable, seed: int = 0) -> dict[str, np.ndarray]:
    """Return parameters as training might leave them."""
    rng = np.random.default_rng(seed)
    found = {}
    for placed in trainable.network.parameters:
        start = np.asarray(placed.parameter.start, np.float32)
        noise = rng.normal(size=start.shape).astype(np.float32)
        if placed.parameter.role in ("weight", "bias"):
            found[placed.parameter.name] = start + 0.05 * start.std() * noise
        else:
            found[placed.parameter.name] = np.asarray(start * (1 + 0.05 * noise), np.float32)
    return found


def outputs(model: bytes, feed: dict[str, np.ndarray], name: str) -> np.ndarray:
    return run(open_session(model), feed, [name])[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_integer_model_answers_as_the_trained_network(digits, method: str) -> None:
    trainable = trainable_by(method)
    parameters = moved(trainable)
    targets = choose_targets(trainable.source.model, "mse")
    evaluated = to_bytes(evaluation_graph(trainable.network, targets, Loss(kind="mse")))
    images = digits.images()[:128]
    target = {"target::logits": np.zeros((128, 10), np.float32)}
    trained = outputs(evaluated, {"input": images, **target, **parameters}, "logits")

    work, version, _ = prepared()
    found = trainable.taken_over(Refined(), parameters)
    model = work.source.model.clone()
    work._emit(model, version.keep_float, version.plan, refined=found)
    deployed = outputs(to_bytes(model), {"input": images}, "logits")

    for name, tensor in found.given.items():
        assert len(np.unique(tensor.codes)) <= 2 ** trainable.network.starts[name].qtype.bits
    np.testing.assert_array_equal(deployed.argmax(-1), trained.argmax(-1))
    # what float32 rounds otherwise is a code here and there, which others read
    assert np.abs(deployed - trained).mean() < 0.02 * np.abs(trained).mean()


def test_a_bound_that_was_trained_away_is_refused() -> None:
    trainable = trainable_by("pact")
    parameters = moved(trainable)
    bound = next(n for n in parameters if n.endswith("::alpha"))
    parameters[bound] = np.asarray(0.0, np.float32)
    work, version, _ = prepared()
    with pytest.raises(VerificationError, match="scale"):
        deploy(trainable.network, parameters, version.plan, trainable.sites, work.source.model)


def test_channels_of_zeros_make_room_for_their_bias() -> None:
    trainable = trainable_by("lsq")
    parameters = moved(trainable)
    weight, bias = "block1.expand.conv.weight", trainable.network.biases["block1.expand.conv"]
    parameters[weight][0] = 0.0
    parameters[f"{weight}::step"][0] = 1e-12
    parameters[bias][0] = 1.0
    found = trainable.taken_over(Refined(), parameters)
    assert found.given[weight].qparams.scale[0] > 1e-12
    work, version, _ = prepared()
    model = work.source.model.clone()
    work._emit(model, version.keep_float, version.plan, refined=found)  # or it does not fit int32


def test_finer_grids_learn_more_slowly() -> None:
    placed = {p.parameter.name: p.parameter for p in trainable_by("lsq").network.parameters}
    edge, inner = placed["stem.conv.weight"], placed["block1.expand.conv.weight"]

    def pace(parameter):  # type: ignore[no-untyped-def]
        return parameter.rate / np.sqrt(np.mean(np.square(parameter.start)))

    assert pace(inner) == pytest.approx(1.0)
    # of 7 bits, as pairs of 8 would saturate: 63 steps on either side, and not 7
    assert pace(edge) == pytest.approx(7 / 63)


def test_copies_are_left_to_the_plan() -> None:
    trainable = trainable_by("qil")
    found = trainable.taken_over(Refined(), moved(trainable))
    assert set(found.decisions) == set(trainable.network.activations)


def test_a_copy_is_quantized_at_the_step_that_its_source_is_decoded_with() -> None:
    _, version, _ = prepared()
    before = version.plan.tensors
    copy = next(n for n, d in before.items() if d.observed != n and d.observed in before)
    source = before[copy].observed
    trained = msgspec.structs.replace(before[source], decode=3.0 * before[source].scale)
    plan = with_decisions(version.plan, {source: trained}).tensors
    assert plan[copy].scale == plan[copy].step == pytest.approx(trained.step)
