"""benchmarks/methods.py: that nothing is left out, that it resumes, and that its page is fresh."""

import ast
import json
import tomllib
from argparse import Namespace
from pathlib import Path

import pytest

from ptq.block_methods import BLOCK_METHODS
from ptq.calib import solvers
from ptq.rounders import ROUNDERS
from ptq.weights import weight_quantizers

ROOT = Path(__file__).resolve().parents[2]

#: Methods that are held against something, by kind, as benchmarks/method_checks.toml has them.
KINDS = {
    "weight quantizer": weight_quantizers(),
    "block quantizer": BLOCK_METHODS.methods(),
    "rounding": ROUNDERS.methods(),
    "activation range": solvers(),
}

CHECKED = [(kind, name) for kind, methods in KINDS.items() for name in methods]


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import methods

    return methods


@pytest.fixture
def results():
    return json.loads((ROOT / "benchmarks" / "results" / "methods.json").read_text())


def test_the_page_is_made_from_the_results(methods, results):
    written = methods.PAGE.read_text(encoding="utf-8")
    assert written == methods.page(results), "stale; run benchmarks/methods.py --page"


def test_the_page_has_a_row_for_what_fails_and_none_for_what_is_missing(methods, results):
    options = "--bits W2A8 --weight-method mse"
    failed = {"models": {"digits_cnn": {options: {"error": "no such thing"}}}}
    text = methods.page({**results, **failed})
    assert f"| digits_cnn | `{options}` | no such thing |" in text
    assert "| `mse`" in text
    assert "| `minmax` |" in text.partition("## What each is good for")[2]
    assert "`minmax`" not in text.partition("## Rounding methods")[0]


@pytest.mark.parametrize(("kind", "name"), CHECKED, ids=[" ".join(each) for each in CHECKED])
def test_every_method_says_what_a_test_holds_it_against(kind, name):
    checks = tomllib.loads((ROOT / "benchmarks" / "method_checks.toml").read_text())
    check = checks[kind.replace(" ", "-")][name]
    assert len(check["claim"]) > 20
    path, _, function = check["test"].partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_method_is_measured_at_every_width(methods):
    found = {way.options for way in methods.ways(methods.SECTIONS)}
    assert found >= {
        f"--bits W{bits}A8 --weight-method {name}"
        for name, method in weight_quantizers().items()
        for bits in (8, 4, 3, 2, 1)
        if method.has_width(bits)
    }
    assert found >= {f"--bits W8A4 --calib {name}" for name in solvers()}
    assert found >= {f"--bits W4A8 --rounding {name} --bias-correct" for name in ROUNDERS.methods()}
    assert found >= {
        f"--scheme weight-only --bits {bits} --weight-method {name}"
        for name, method in BLOCK_METHODS.methods().items()
        for bits in (8, 4, 2)
        if method.has_width(bits)
    }


def test_what_is_measured_is_not_measured_again(methods):
    way, other = list(methods.ways(["weights"]))[:2]
    found = {way.model: {way.options: {"sqnr_db": 3.0}, other.options: {"error": "x"}}}

    def missing(which, **given):
        asked = Namespace(**{"again": False, "failed": False, **given})
        return methods._missing(which, found, asked)

    assert not missing(way)
    assert not missing(other)
    assert missing(other, failed=True)
    assert not missing(way, failed=True)
    assert missing(way, again=True)


def test_a_way_that_fails_is_a_result_that_says_so(methods, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"model": str(digits.model), "calib": str(digits.calibration),
             "eval": str(digits.evaluation), "labels": str(digits.evaluation)}  # fmt: skip
    found = methods.measure(
        given, ["--bits W3A8 --weight-method bwn", "--no-such-option", "--bits W8A8"], threads=1
    )["found"]
    assert "has 1 bit" in found[0]["error"] or "bwn" in found[0]["error"]
    assert "no such option" in found[1]["error"].lower()
    assert found[2]["sqnr_db"] > 25
    assert found[2]["weight_bits"] == 8
    assert found[2]["top1"] > 0.95
