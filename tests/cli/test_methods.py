"""`ptq methods`: everything there is to choose from, with its source."""

import msgspec
import pytest
from support.cli import ptq

from ptq.calib import parse_method as parse_solver
from ptq.calib import solvers
from ptq.metrics import metric_names, parse_metric
from ptq.report.literature import System
from ptq.report.methods import Found, Method, widths_text
from ptq.train.fakequant import QAT_METHODS
from ptq.weights import parse_method as parse_quantizer
from ptq.weights import weight_quantizers

#: What the users' guide promises.
RANGES = {"minmax", "ema", "scale", "percentile", "kl", "mse", "qcode"}
WEIGHTS = {"minmax", "percentile", "mse", "qcode"}
TRAINING = {"pact", "pact-sawb", "qil", "dorefa", "wrpn", "lsq", "lsq-plus", "fqn"}
METRICS = {"topk", "agreement", "mse", "cosine", "sqnr", "iou", "ap", "cer", "nll", "perplexity"}


def listed() -> list[Method]:
    return msgspec.json.decode(ptq("methods", "--json").out, type=list[Method], strict=True)


def test_json_lists_every_registered_method():
    names = {
        kind: {m.name for m in listed() if m.kind == kind}
        for kind in ("activation range", "weight quantizer", "metric", "training")
    }
    assert names["activation range"] == set(solvers()) >= RANGES
    assert names["weight quantizer"] == set(weight_quantizers()) >= WEIGHTS
    assert names["metric"] == set(metric_names()) >= METRICS
    assert names["training"] == set(QAT_METHODS.methods()) >= TRAINING


def test_every_method_has_a_line_and_a_source():
    for method in listed():
        assert len(method.title) > 20, method.name
        assert method.title.endswith("."), method.name
        # nobody invented the mean squared error
        assert len(method.paper) > 20 or method.kind == "metric", method.name


def test_text_shows_what_json_holds():
    done = ptq("methods")
    assert done.code == 0
    for method in listed():
        assert f"  {method.name:<11} {method.title}" in done.out
        assert not method.paper or f"source: {method.paper}" in done.out
        assert all(option in done.out for option in method.options)


@pytest.mark.parametrize(
    ("heading", "parse"),
    [
        ("activation range methods", parse_solver),
        ("weight quantizers", parse_quantizer),
        ("metrics", parse_metric),
        ("training methods", QAT_METHODS.parse),
    ],
)
def test_what_is_shown_as_options_can_be_typed(heading, parse):
    section = ptq("methods").out.split(heading)[1].split("\n\n")[0]
    shown = [line.split("options: ")[1] for line in section.splitlines() if "options: " in line]
    shown = [text for text in shown if ":" in text]  # others name options that have no default
    assert shown
    for text in shown:
        assert parse(text) == parse(text.partition(":")[0]), "the defaults, spelled out"


def test_systems_are_listed_with_what_makes_them():
    done = ptq("methods", "--systems")
    found = msgspec.json.decode(ptq("methods", "--systems", "--json").out, type=list[System])
    assert len(found) > 60
    for system in found:
        assert system.name in done.out
        assert all(use in done.out for use in system.use)
        assert system.out_of_scope in done.out


def test_a_name_shows_all_that_has_it():
    found = msgspec.json.decode(ptq("methods", "PACT", "--json").out, type=Found)
    assert {method.kind for method in found.methods} >= {"training"}
    assert found.systems[0].name == "PACT"
    assert "Distillation" in [system.name for system in found.systems], "which pact makes"
    done = ptq("methods", "pact")
    assert "training methods (--fine-tune)" in done.out
    assert "use: ptq quantize MODEL --bits W4A4 --fine-tune pact" in done.out
    assert "note: The paper asks for" in done.out


@pytest.mark.parametrize("name", ["deep compression", "DeepCompression", "vnq", "group-net"])
def test_names_of_systems_are_found_however_they_are_written(name):
    assert ptq("methods", name).out.startswith(("Deep Compression\n", "VNQ\n", "Group-Net\n"))


def test_a_name_of_nothing_is_an_error_with_a_remedy():
    done = ptq("methods", "lsqq")
    assert done.code == 2
    assert "no method or system 'lsqq'; did you mean 'LSQ'?" in done.message
    assert ptq("methods", "lsq", "--systems").code == 2


def test_weight_quantizers_say_their_widths():
    assert [m.widths for m in listed() if m.name == "bwn"] == [(1,)]
    assert "widths: 1 bit\n" in ptq("methods", "bwn").out
    assert "\n              widths: 2 to 8 bits\n" in ptq("methods", "minmax").out


@pytest.mark.parametrize(
    ("widths", "text"),
    [((1,), "1 bit"), ((4,), "4 bits"), ((2, 3, 4), "2 to 4 bits"), ((2, 4, 8), "2, 4 and 8 bits"),
     ((2, 3, 4, 8), "2 to 4 and 8 bits")],
)  # fmt: skip
def test_widths_in_words(widths, text):
    assert widths_text(widths) == text


def test_the_help_of_quantize_names_the_default_methods():
    text = " ".join(ptq("quantize", "--help").out.split())
    assert "`ptq methods` lists them" in text
    assert "[default: kl]" in text
