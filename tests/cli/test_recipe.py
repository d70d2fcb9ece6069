"""Recipes on the command line: where options come from, and what is said of it."""

from __future__ import annotations

import hashlib
import tomllib

import click
import onnx
import pytest
from support.cli import contents, ptq

from ptq.cli import check, quantize, recipes
from ptq.recipe import DATA, PATHS

MODEL, CALIB = "digits_cnn.onnx", "digits_calib.npz"
OUTPUT = "digits_cnn.int8.onnx"


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def embedded(path) -> str:
    return {p.key: p.value for p in onnx.load(path).metadata_props}["ptq"]


def shown(*arguments) -> dict:
    done = ptq("recipe", "show", *arguments)
    assert done.code == 0, done.err
    return tomllib.loads(done.out)["quantize"]


def origin(text: str, key: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
    return line.partition("# ")[2]


# -- taking options from a recipe -----------------------------------------------------------------


def test_options_come_from_the_recipe_of_the_folder_above_and_that_is_said(work, monkeypatch):
    (work / "ptq.toml").write_text(
        f'[quantize]\ncalib-data = "{CALIB}"\nsamples = 8\ncalib = "minmax"\n'
        'symmetric-weights = false\nblock = 64\nop-types = ["Conv", "Gemm"]\n'
    )
    (work / "inner").mkdir()
    monkeypatch.chdir(work / "inner")
    done = ptq("quantize", f"../{MODEL}", "--seed", 3)
    assert done.code == 0, done.err
    assert "using ../ptq.toml\n" in done.err
    config = tomllib.loads(ptq("recipe", "extract", f"../{OUTPUT}").out)["quantize"]
    wanted = {
        "calib": "minmax",
        "symmetric-weights": False,
        "block": 64,
        "op-types": ["Conv", "Gemm"],
        "samples": 8,
        "seed": 3,
    }
    assert {key: config[key] for key in wanted} == wanted


def test_flag_wins_over_variable_over_model_over_table_over_preset_over_default(work, monkeypatch):
    def calib(*arguments):
        return shown(MODEL, *arguments)["calib"], shown(MODEL, *arguments)["format"]

    assert calib() == ("kl", "qdq")
    assert calib("--preset", "fast") == ("kl", "integer")
    (work / "ptq.toml").write_text('[quantize]\ncalib = "minmax"\npreset = "fast"\n')
    assert calib() == ("minmax", "integer")
    assert calib("--preset", "accurate") == ("minmax", "qdq")
    with (work / "ptq.toml").open("a") as file:
        file.write(f'[[model]]\nmatch = "{MODEL}"\nquantize = {{ calib = "ema" }}\n')
    assert calib() == ("ema", "integer")
    assert shown("other.onnx")["calib"] == "minmax"
    monkeypatch.setenv("PTQ_QUANTIZE_CALIB", "percentile")
    assert calib() == ("percentile", "integer")
    assert calib("--calib", "mse") == ("mse", "integer")
    monkeypatch.setenv("PTQ_QUANTIZE_PRESET", "balanced")
    assert calib() == ("percentile", "qdq")


def test_no_recipe_and_another_recipe(work):
    (work / "ptq.toml").write_text("[quantize]\nseed = 1\n")
    (work / "other.toml").write_text("[quantize]\nseed = 2\n")
    assert shown()["seed"] == 1
    assert shown("--no-recipe")["seed"] == 0
    asked = ptq("recipe", "show", "--recipe", "other.toml")
    assert tomllib.loads(asked.out)["quantize"]["seed"] == 2
    assert asked.err == "", "it was asked for"
    assert "exclude each other" in ptq("quantize", MODEL, "--recipe", "a", "--no-recipe").message
    assert "cannot read recipe 'none'" in ptq("quantize", MODEL, "--recipe", "none").message


def test_a_flag_of_several_values_replaces_those_of_the_recipe(work):
    (work / "ptq.toml").write_text('[quantize]\nexclude = ["a", "b"]\nplace = "all"\n')
    assert shown()["exclude"] == ["a", "b"]
    assert shown("--exclude", "c")["exclude"] == ["c"]


def test_image_options_may_be_a_table(work):
    (work / "ptq.toml").write_text(
        "[quantize]\nimage = { resize = 256, mean = [0.485, 0.5], layout = 'nchw' }\n"
    )
    assert shown()["image"] == ["resize=256", "mean=0.485,0.5", "layout=nchw"]


def test_overrides_reach_the_model(work):
    text = f'[quantize]\ncalib-data = "{CALIB}"\nsamples = 8\n'
    text += '[[quantize.override]]\nmatch = "head.conv"\nfloat = true\n'
    (work / "ptq.toml").write_text(text)
    assert ptq("quantize", MODEL).code == 0
    assert '"overrides":[{"float":true,"match":"head.conv"}]' in embedded(work / OUTPUT)


def test_help_reads_no_recipe_and_shows_the_real_defaults(work):
    (work / "ptq.toml").write_text('[quantize]\npreset = "smallest"\nnonsense = 1\n')
    done = ptq("quantize", "--help")
    assert done.code == 0
    assert "using" not in done.err
    assert "[default: qdq]" in done.out
    for name in ("fast", "balanced", "accurate", "smallest"):
        assert f"{name}:" in done.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('calb = "kl"', "[quantize] has unknown key 'calb'; did you mean 'calib'?"),
        ("zzz = 1", "[quantize] has unknown key 'zzz'; choose from: preset, "),
        ("asymmetric = true", "unknown key 'asymmetric'; write symmetric = false"),
        ('recipe = "a"', "has 'recipe', which is of the command line"),
        ("samples = true", "[quantize] samples: takes a whole number, not true"),
        ('samples = "8"', '[quantize] samples: takes a whole number, not "8"'),
        ("samples = 0", "[quantize] samples: 0 is not in the range"),
        ('force = "yes"', "[quantize] force: takes true or false"),
        ("calib = 3", "[quantize] calib: takes text in quotes, not 3"),
        ("exclude = [1]", "[quantize] exclude: takes text in quotes, not 1"),
        ("op-types = [1]", "[quantize] op-types: takes text in quotes, or a list"),
        ('format = "onnx"', "[quantize] format: 'onnx' is not one of"),
        ('preset = "tiny"', "[quantize] preset: 'tiny' is not one of"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_file_and_table(work, line, said):
    (work / "ptq.toml").write_text(f"[quantize]\n{line}\n")
    before = contents(work)
    done = ptq("quantize", MODEL, "--calib-data", CALIB)
    assert done.code == 2
    assert done.message.startswith("error: ptq.toml: ")
    assert said in done.message
    assert contents(work) == before


def test_entries_of_other_models_and_other_commands_are_checked_too(work):
    (work / "ptq.toml").write_text('[[model]]\nmatch = "x.onnx"\nquantize = { calb = 1 }\n')
    assert '[[model]] "x.onnx" has unknown key' in ptq("quantize", MODEL).message
    (work / "ptq.toml").write_text('[check]\nmax-dorp = "1%"\n')
    assert "[check] has unknown key 'max-dorp'; did you mean 'max-drop'?" in (
        ptq("quantize", MODEL).message
    )


@pytest.mark.parametrize("command", [quantize.command, check.command], ids=lambda c: c.name)
def test_every_option_that_is_a_file_is_known_as_one(command):
    files = {k for k, p in recipes.by_key(command).items() if isinstance(p.type, click.Path)}
    assert files <= PATHS
    texts = {k for k, p in recipes.by_key(command).items() if p.metavar == "DATA"}
    assert texts <= DATA


# -- recipe show ----------------------------------------------------------------------------------


def test_show_says_where_each_value_comes_from(work, monkeypatch):
    (work / "ptq.toml").write_text(
        '[quantize]\ncalib = "mse"\nsamples = 4\npreset = "fast"\n'
        f'[[model]]\nmatch = "*.onnx"\nquantize = {{ calib-data = "{CALIB}" }}\n'
    )
    monkeypatch.setenv("PTQ_QUANTIZE_EMA_DECAY", "0.5")
    done = ptq("recipe", "show", MODEL, "--seed", "4")
    assert done.err == "using ptq.toml\n"
    assert {key: origin(done.out, key) for key in tomllib.loads(done.out)["quantize"]}.items() >= {
        "seed": "flag",
        "ema-decay": "PTQ_QUANTIZE_EMA_DECAY",
        "calib": "ptq.toml [quantize]",
        "calib-data": 'ptq.toml [[model]] "*.onnx"',
        "format": "preset fast",
        "bits": "default",
    }.items()


def test_what_is_shown_is_a_recipe_that_shows_the_same(work):
    (work / "ptq.toml").write_text(
        f'[quantize]\ncalib-data = "{CALIB}"\nexclude = ["a\\"b", "c#\\\\d"]\nblock = 16\n'
        "[quantize.placement]\nkeep-float = ['x y']\nvariants = { stem = ['s'] }\n"
        '[[quantize.override]]\nop = "Conv"\nweight-method = "mse"\n'
    )
    first = shown(MODEL)
    (work / "shown.toml").write_text(ptq("recipe", "show", MODEL).out)
    assert shown(MODEL, "--recipe", "shown.toml") == first
    assert first["placement"] == {"keep-float": ["x y"], "variants": {"stem": ["s"]}}
    assert first["override"] == [{"op": "Conv", "weight-method": "mse"}]


def test_show_of_check(work):
    (work / "ptq.toml").write_text('[check]\ndata = "{name}.npz"\nmax-drop = "0.5%"\n')
    done = ptq("recipe", "show", "--command", "check", MODEL, "--recipe", "ptq.toml")
    found = tomllib.loads(done.out)["check"]
    assert (found["data"], found["max-drop"]) == ("digits_cnn.npz", "0.5%")


# -- recipe extract -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--calib", "mse", "--exclude", "head.conv", "--weights", "per-tensor"),
        ("--format", "integer", "--asymmetric-weights", "--op-types", "Conv,Add,Gemm"),
        ("--scheme", "dynamic"),
        ("--scheme", "weight-only", "--bits", "4", "--block", "64"),
    ],
    ids=["qdq", "integer", "dynamic", "weight-only"],
)
def test_an_extracted_recipe_makes_the_same_bytes(work, options):
    data = ("--calib-data", CALIB)
    assert ptq("quantize", MODEL, *data, "--samples", 16, *options, "-o", OUTPUT).code == 0
    extracted = ptq("recipe", "extract", OUTPUT, "-o", "made.toml")
    assert "wrote made.toml; run `ptq quantize MODEL --recipe made.toml" in extracted.out
    again = ptq("quantize", MODEL, *data, "--recipe", "made.toml", "-o", "again.onnx")
    assert again.code == 0, again.err
    assert sha256(work / "again.onnx") == sha256(work / OUTPUT)
    assert "extracted" not in again.err


@pytest.mark.places
def test_an_extracted_recipe_repeats_a_measured_placement(work):
    """Timings of so small a network are noise: measuring again would often choose otherwise."""
    quick = ("--calib-data", CALIB, "--samples", 8, "--seconds", "0.01", "--on-slower", "write")
    assert ptq("quantize", MODEL, *quick).code == 0
    assert ptq("recipe", "extract", OUTPUT, "-o", "made.toml").code == 0
    made = tomllib.loads((work / "made.toml").read_text())["quantize"]
    assert made["place"] == ["auto"]
    assert "keep-float" in made["placement"]
    given = ("--calib-data", CALIB, "--recipe", "made.toml", "--on-slower", "write")
    assert ptq("quantize", MODEL, *given, "-o", "again.onnx").code == 0
    assert sha256(work / "again.onnx") == sha256(work / OUTPUT)


def test_image_options_come_with_the_recipe(work, tmp_path):
    from ptq.config import QuantizeConfig
    from ptq.data import ImageOptions
    from ptq.embedded import EmbeddedRecipe, PinnedPlacement
    from ptq.extracting import recipe_file

    images = ImageOptions(resize=256, mean=(0.485, 0.456, 0.406), std=(0.5,), colour="bgr")
    made = EmbeddedRecipe(
        ptq="1",
        config=QuantizeConfig(),
        model_sha256="ab",
        placement=PinnedPlacement(),
        images=images,
    )
    (tmp_path / "made.toml").write_text(recipe_file(made))
    arguments = ["m.onnx", "--recipe", str(tmp_path / "made.toml")]
    with quantize.command.make_context("quantize", arguments) as context:
        found = quantize.run_options_of(context.params, recipes.found(context))
    assert found.images == images


def test_other_data_or_another_model_than_the_recipe_was_made_from_is_said(work):
    assert ptq("quantize", MODEL, "--calib-data", CALIB, "--samples", 8).code == 0
    assert ptq("recipe", "extract", OUTPUT, "-o", "made.toml").code == 0
    given = ("--recipe", "made.toml", "--force")
    other = ptq("quantize", MODEL, "--calib-data", "digits_eval.npz", *given)
    assert "made with other calibration data; results differ" in other.err
    assert "another float model" not in other.err
    model = onnx.load(MODEL)
    model.doc_string = "another"
    onnx.save(model, "other.onnx")
    other = ptq("quantize", "other.onnx", "--calib-data", CALIB, *given)
    assert "made with another float model; results differ" in other.err
    assert "other calibration data" not in other.err


def test_a_model_without_a_recipe_is_an_error(work):
    done = ptq("recipe", "extract", MODEL)
    assert done.code == 1
    assert "holds no recipe: it was not made by `ptq quantize`" in done.message


def test_extract_replaces_nothing_unasked(work):
    assert ptq("quantize", MODEL, "--scheme", "weight-only").code == 0
    (work / "made.toml").write_text("precious")
    assert "exists; give --force" in ptq("recipe", "extract", OUTPUT, "-o", "made.toml").message
    assert "the model that is read" in ptq("recipe", "extract", OUTPUT, "-o", OUTPUT).message
    assert ptq("recipe", "extract", OUTPUT, "-o", "made.toml", "--force").code == 0
