"""Recipes: found, read and checked in shape, and what of them holds for a model."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.config import Override
from ptq.errors import ConfigError
from ptq.recipe import find_recipe, load_recipe
from ptq.toml_writer import toml_lines


def recipe(folder: Path, text: str, name: str = "ptq.toml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return load_recipe(folder / name)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# -- finding --------------------------------------------------------------------------------------


def test_the_nearest_folder_above_has_the_recipe(tmp_path):
    touch(tmp_path / "ptq.toml", tmp_path / "a" / "ptq.toml", tmp_path / "a" / "b" / "c" / "x")
    assert find_recipe(tmp_path / "a" / "b" / "c") == tmp_path / "a" / "ptq.toml"
    assert find_recipe(tmp_path) == tmp_path / "ptq.toml"


def test_ptq_toml_wins_over_pyproject_beside_it_and_pyproject_counts_with_a_table(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.ptq.quantize]\nbits = 8\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[tool.ruff]\n# ptq is not here\n")
    assert find_recipe(inner) == tmp_path / "pyproject.toml"
    touch(tmp_path / "ptq.toml")
    assert find_recipe(inner) == tmp_path / "ptq.toml"


def test_the_search_ends_at_the_repository(tmp_path):
    touch(tmp_path / "ptq.toml")
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "deep").mkdir()
    assert find_recipe(tmp_path / "repo" / "deep") is None
    touch(tmp_path / "repo" / "ptq.toml")
    assert find_recipe(tmp_path / "repo" / "deep") == tmp_path / "repo" / "ptq.toml"


def test_a_broken_pyproject_of_others_is_passed_over_and_ours_is_an_error(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.ruff")
    assert find_recipe(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[tool.ptq")
    with pytest.raises(ConfigError, match="is not TOML"):
        find_recipe(tmp_path)


# -- what holds -----------------------------------------------------------------------------------


def test_later_entries_win_over_earlier_ones_and_over_the_general_table(tmp_path):
    touch(tmp_path / "models" / "a.onnx", tmp_path / "models" / "b.onnx")
    found = recipe(
        tmp_path,
        """
        [quantize]
        calib = "kl"
        seed = 1
        exclude = ["x", "y"]
        [[model]]
        match = "models/*.onnx"
        quantize = { calib = "mse", exclude = ["z"] }
        [[model]]
        match = "models/a.onnx"
        quantize = { calib = "minmax" }
        """,
    )
    general = {"calib": "kl", "seed": 1, "exclude": ["x", "y"]}
    assert found.settings("quantize", None) == general
    assert found.settings("quantize", tmp_path / "other.onnx") == general
    b = found.settings("quantize", tmp_path / "models" / "b.onnx")
    assert b == {"calib": "mse", "seed": 1, "exclude": ["z"]}
    assert found.settings("quantize", tmp_path / "models" / "a.onnx")["calib"] == "minmax"
    assert found.settings("check", tmp_path / "models" / "a.onnx") == {}


def test_overrides_of_a_model_come_after_the_general_ones(tmp_path):
    touch(tmp_path / "a.onnx")
    found = recipe(
        tmp_path,
        """
        [[quantize.override]]
        op = "MatMul"
        weight-method = "mse"
        [[model]]
        match = "a.onnx"
        [[model.quantize.override]]
        match = "/head/*"
        float = true
        """,
    )
    assert found.settings("quantize", tmp_path / "a.onnx")["override"] == (
        Override(op="MatMul", weight_method="mse"),
        Override(match="/head/*", float=True),
    )


def test_paths_are_relative_to_the_recipe_and_name_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "r" / "m" / "net.onnx")
    text = """
        [quantize]
        calib-data = "data/{name}.npz"
        output = "../out/{name}.int8.onnx"
        calib = "{name}"
        [check]
        data = "/abs/{name}"
    """
    found = recipe(Path("r"), text)
    settings = found.settings("quantize", Path("r/m/net.onnx"))
    assert settings["calib-data"] == "r/data/net.npz"
    assert settings["output"] == "out/net.int8.onnx"
    assert settings["calib"] == "{name}", "no path"
    assert found.settings("quantize", None)["calib-data"] == "r/data/{name}.npz"
    assert found.settings("check", Path("r/m/net.onnx")) == {"data": "/abs/net"}


@pytest.mark.parametrize("source", ["random", "random:x.2=64", "package.module:feeds"])
def test_data_that_is_no_path_is_left_alone(tmp_path, source):
    found = recipe(tmp_path, f'[quantize]\ncalib-data = "{source}"\n')
    assert found.settings("quantize", None)["calib-data"] == source


def test_the_models_are_what_entries_match_each_once_and_no_results(tmp_path):
    names = ["a.onnx", "b.onnx", "a.int8.onnx", "b.int4.integer.onnx", "deep/c.onnx", "out/b.onnx"]
    touch(*(tmp_path / "m" / name for name in names), tmp_path / "m" / "notes.txt")
    found = recipe(
        tmp_path,
        """
        [[model]]
        match = "m/*.onnx"
        [[model]]
        match = "m/**/*.onnx"
        [[model]]
        match = "m/b.onnx"
        quantize = { output = "m/out/b.onnx" }
        """,
    )
    models = [str(path.relative_to(tmp_path)) for path in found.models()]
    assert models == ["m/a.onnx", "m/b.onnx", "m/deep/c.onnx"]


def test_pyproject_holds_the_same_below_tool_ptq(tmp_path):
    found = recipe(tmp_path, '[tool.ptq.quantize]\ncalib = "mse"\n', "pyproject.toml")
    assert found.settings("quantize", None) == {"calib": "mse"}
    assert found.every("quantize")[0][0] == "[tool.ptq.quantize]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[quantise]\n", "unknown key 'quantise'; did you mean 'quantize'?"),
        ("quantize = 3\n", r"\[quantize\] must be a table"),
        ("[model]\nmatch = 'a'\n", r"needs two brackets around \[\[model\]\]"),
        ("[[model]]\nquantize = {}\n", r"\[\[model\]\] number 1 needs a glob"),
        ("[[model]]\nmatch = 'a'\ncheckk = {}\n", "did you mean 'check'"),
        ("[quantize.override]\nfloat = true\n", r"two brackets around \[\[quantize.override\]\]"),
        ("[[quantize.override]]\nbitz = 4\n", "override number 1 has unknown key 'bitz'; .*'bits'"),
        ("[[quantize.override]]\nbits = '4'\n", "override number 1: bits: expected `int`, got"),
        ("[[quantize.override]]\nmatch = 'a'\n", "changes nothing"),
        ("[quantize.placement]\nkeep_float = []\n", "did you mean 'keep-float'"),
        ("[quantize", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_file_and_the_table(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as error:
        recipe(tmp_path, text)
    assert str(tmp_path / "ptq.toml") in str(error.value)


def test_a_recipe_that_is_not_there_or_has_no_table_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"no \[tool.ptq\]"):
        recipe(tmp_path, "[tool.ruff]\n", "pyproject.toml")


# -- writing TOML ---------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(table=st.dictionaries(TEXT, VALUES, max_size=4), note=TEXT)
def test_what_is_written_reads_back_equal(table, note):
    text = "\n".join(toml_lines(table, dict.fromkeys(table, note)))
    found = tomllib.loads(text)
    assert found == table
    # equal, and of the same types: 1 is 1.0 is True
    assert repr(found) == repr(table)


def test_none_has_no_form_in_toml():
    with pytest.raises(ValueError):
        toml_lines({"a": None})
