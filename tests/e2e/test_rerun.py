"""The recipe in a model, run again, writes the same bytes."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image
from support.models import write

import ptq
from ptq import Override, PinnedPlacement
from ptq.calibration import observe_apart
from ptq.data import ImageOptions, open_dataset
from ptq.errors import ConfigError, ModelError
from ptq.graph.protos import parse_tensor
from ptq.inputs import Inputs
from ptq.options import RunOptions
from ptq.placing import Placer
from ptq.progress import Stages
from ptq.source import open_source
from ptq.work import Work

OVERRIDES = (
    Override(match="block1.*", float=True),
    Override(match="head.conv", calib="mse", weight_method="percentile"),
)


class Runs:
    """Quantizes one model, and again from the recipe in the result."""

    def __init__(self, model, calibration, folder):
        self.model, self.calibration, self.folder = model, calibration, folder

    def once(self, config=None, name="once.onnx", **run):
        options = RunOptions(output=self.folder / name, force=True, **run)
        return ptq.quantize(self.model, self.calibration, config, options=options)

    def again(self, file: Path, **run):
        recipe = ptq.read_recipe(file)
        run = {"samples": recipe.samples, "placement": recipe.placement, **run}
        return self.once(recipe.config, "again.onnx", **run)

    def is_repeated(self, file: Path, **run):
        return self.again(file, **run).output.read_bytes() == file.read_bytes()


@pytest.fixture
def runs(digits, tmp_path):
    return Runs(digits.model, digits.calibration, tmp_path)


def never(*_, **__):
    pytest.fail("something was measured to place")


@pytest.mark.places
@pytest.mark.parametrize(
    ("scheme", "form"),
    [
        *(("static", "qdq"), ("static", "integer"), ("dynamic", "integer")),
        *(("weight-only", "qdq"), ("auto", "integer")),
    ],
)
def test_a_measured_model_is_made_again_without_measuring(runs, monkeypatch, scheme, form):
    config = ptq.QuantizeConfig(scheme=scheme, format=form)
    once = runs.once(config, on_slower="write")
    monkeypatch.setattr(Placer, "choose", never)
    monkeypatch.setattr("ptq.schemes.SchemeWriter.settle", never)
    again = runs.again(once.output)
    assert again.report.placement.mode == "pinned"
    assert again.output.read_bytes() == once.output.read_bytes()


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_a_placement_and_overrides_are_in_the_recipe(runs, scheme, form):
    config = ptq.QuantizeConfig(scheme="auto", format=form, overrides=OVERRIDES).with_scheme(scheme)
    placement = PinnedPlacement(keep_float=("dense.conv",), convolutions=scheme == "dynamic")
    once = runs.once(config, placement=placement, samples=12)
    recipe = ptq.read_recipe(once.output)
    assert recipe.placement == placement
    assert recipe.config == config.at(recipe.config.target)
    assert not {"dense.conv", "block1.project.conv"} & once.plan.integer_nodes
    assert runs.is_repeated(once.output)


def test_variants_are_in_the_recipe(runs, digits):
    # whether they pay is for a machine to say; here they are only written
    target = "ort-cpu-x86-vnni"
    config = ptq.QuantizeConfig(target=target)
    source = open_source(digits.model)
    possible = Work(source, Inputs(), config, Stages(), 1).variants()
    assert possible
    placement = PinnedPlacement.of((), possible)
    assert placement.variant_of() == possible
    once = runs.once(config, placement=placement)
    assert ptq.read_recipe(once.output).placement == placement
    assert runs.is_repeated(once.output)
    plain = runs.once(config, "plain.onnx", placement=PinnedPlacement())
    assert plain.output.read_bytes() != once.output.read_bytes()


def test_factors_of_channels_are_found_again(runs):
    config = ptq.QuantizeConfig(equalize=True, weights="per-tensor")
    once = runs.once(config, samples=20)
    assert "ptq.rescaled" in {p.key for p in onnx.load(once.output).metadata_props}
    assert runs.is_repeated(once.output)


def test_of_two_files_each_holds_what_makes_it_alone(runs, tmp_path):
    runs.once(ptq.QuantizeConfig(format="both"))
    for name, form in (("once.onnx", "qdq"), ("once.integer.onnx", "integer")):
        assert ptq.read_recipe(tmp_path / name).config.format == form
        assert runs.is_repeated(tmp_path / name)


def test_the_number_of_samples_and_the_seed_of_random_data_are_in_the_recipe(runs):
    runs.calibration = "random"
    once = runs.once(ptq.QuantizeConfig(seed=5), samples=3)
    recipe = ptq.read_recipe(once.output)
    assert (recipe.samples, recipe.random_data, recipe.config.seed) == (3, True, 5)
    assert runs.is_repeated(once.output)


# What a MaxPool puts out has the scale of its input, and is observed only if that stays in float.
POOLED = """g (float[1, 3, 16, 16] x) => (float[N, M] y)
    <float[8, 3, 3, 3] a, float[8, 8, 3, 3] b, float[8, 8, 1, 1] c, int64[2] s = {1, -1},
     float[8, 4] d>
    { t = Conv <pads = [1, 1, 1, 1]> (x, a) r = Relu (t)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) u = Conv (p, b)
      q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (u) v = Conv (q, c)
      g = GlobalAveragePool (v) f = Reshape (g, s) y = MatMul (f, d) }"""


LINEAR = ("Conv", "MatMul", "Gemm")


@pytest.fixture
def pooled(tmp_path):
    data = np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    return Runs(write(tmp_path / "m.onnx", POOLED), tmp_path / "data.npz", tmp_path)


def test_the_bytes_depend_on_the_placement_and_not_on_those_tried_before(pooled, monkeypatch):
    passes = []

    def recorded(source, tensors, *given, **more):
        passes.append(tuple(tensors))
        return observe_apart(source, tensors, *given, **more)

    monkeypatch.setattr("ptq.work.observe_apart", recorded)
    source = open_source(pooled.model)
    first, second, third, _ = [n.name for n in source.model.graph if n.op_type in LINEAR]
    tried = [(first,), (second,), (third,), (first, third), (second, third)]
    config, fresh = ptq.QuantizeConfig(allow_larger=True), {}
    for kept in tried:
        placement = PinnedPlacement(keep_float=tuple(sorted(kept)))
        fresh[kept] = pooled.once(config, placement=placement).output.read_bytes()
    assert len(set(fresh.values())) == len(tried)
    # the same tensors are read whatever was tried: others would be fused, and round, otherwise
    alone = set(passes)
    assert len(alone) == 2
    passes.clear()
    settled = ptq.read_recipe(pooled.folder / "once.onnx").config
    data = open_dataset(pooled.calibration, source.inputs, tensor_parser=parse_tensor)
    work = Work(source, Inputs(data), settled, Stages(), 1)
    path = pooled.folder / "candidate.onnx"
    work.write(path, "qdq")
    for kept in tried:
        work.write(path, "qdq", dict.fromkeys(kept, "tried"))
        assert path.read_bytes() == fresh[kept]
    assert len(passes) == 2
    assert set(passes) == alone


def test_what_a_placement_says_is_not_repaired(pooled, monkeypatch):
    config = ptq.QuantizeConfig(allow_larger=True)
    measured = Work._write
    unfused = iter([frozenset({"Conv:u"}), frozenset()])

    def doubtful(self, *given):
        version = measured(self, *given)
        left = next(unfused, frozenset({"Conv:t"}))
        names = frozenset(n for n in version.plan.integer_nodes if n in left)
        return replace(version, coverage=replace(version.coverage, unfused=names))

    monkeypatch.setattr(Work, "_write", doubtful)
    once = pooled.once(config)
    recipe = ptq.read_recipe(once.output)
    assert recipe.placement.keep_float == ("Conv:u",)
    # the runtime would now have another one repaired, too
    assert pooled.is_repeated(once.output)


# -- what a recipe holds ---------------------------------------------------------------------------


def test_image_options_are_in_the_recipe(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    runs = Runs(write(tmp_path / "m.onnx", POOLED), tmp_path / "images", tmp_path)
    images = ImageOptions(resize=17, mean=(0.5,))
    once = runs.once(ptq.QuantizeConfig(allow_larger=True), images=images)
    recipe = ptq.read_recipe(once.output)
    assert recipe.images == images
    assert runs.is_repeated(once.output, images=recipe.images)


def test_a_recipe_survives_its_text(runs):
    once = runs.once(ptq.QuantizeConfig(overrides=OVERRIDES))
    recipe = ptq.read_recipe(once.output)
    [text] = [p.value for p in onnx.load(once.output).metadata_props if p.key == "ptq"]
    assert recipe.to_json() == text
    assert msgspec.json.decode(text, type=ptq.EmbeddedRecipe) == recipe


def test_a_placement_of_another_model_is_refused(runs):
    for scheme in ("static", "dynamic"):
        with pytest.raises(ConfigError, match="'nowhere', which is no node of this model"):
            runs.once(
                ptq.QuantizeConfig(scheme=scheme),
                placement=PinnedPlacement(keep_float=("nowhere",)),
            )


def test_a_placement_is_of_one_scheme(runs):
    with pytest.raises(ConfigError, match="a placement is of one scheme"):
        runs.once(ptq.QuantizeConfig(scheme="auto"), placement=PinnedPlacement())


def with_property(path, key, value):
    model = onnx.load(path)
    del model.metadata_props[:]
    if key:
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def test_a_model_without_a_recipe_is_said_to_have_none(digits, tmp_path):
    with pytest.raises(ModelError, match="holds no recipe: it was not made by `ptq quantize`"):
        ptq.read_recipe(digits.model)
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be read"):
        ptq.read_recipe(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("made with love", "is no recipe"),
        ('{"a": 1}', "is no recipe"),
        ('{"ptq": "9.9", "config": {"magic": true}}', "made by ptq 9.9, this is"),
        ('{"ptq": "9.9", "config": {"overrides": [{}]}}', "made by ptq 9.9, this is"),
        ('{"ptq": "9.9", "config": {}, "model_sha256": "", "placement": {}, "schema": 2}', "9.9"),
    ],
)
def test_a_property_that_cannot_be_read_is_said_to_be_so(runs, tmp_path, text, said):
    path = with_property(write(tmp_path / "x.onnx", POOLED), "ptq", text)
    with pytest.raises(ModelError, match=said):
        ptq.read_recipe(path)
