"""The systems of the literature: all are there, and what makes them can be typed."""

import shlex

import click
import pytest

from ptq.cli import qat as qat_commands
from ptq.cli import quantize as quantize_command
from ptq.cli import recipes
from ptq.cli.main import _ptq
from ptq.report.literature import System, systems
from ptq.train.fakequant import QAT_METHODS
from ptq.weights import parse_method

#: What the documents that the project began with name, by words of the names here.
NAMED = (
    "PACT", "PACT-SAWB", "QIL", "DoReFa-Net", "KL divergence", "0.8 of the largest", "QCode",
    "Towards Effective Low-bitwidth", "WRPN", "WRPN's widening", "VNQ", "WAGE", "WAGE's gradients",
    "CLIP-Q", "Bi-Real Net", "UNIQ", "reconfigurable hardware", "ELQ", "HWGQ", "FQN", "LQ-Nets",
    "ProxQuant", "ADMM", "LAB", "LAQ", "Balanced Quantization", "Two-Step Quantization",
    "BinaryConnect", "BWN", "XNOR-Net", "TWN", "TTQ", "ABC-Net", "Group-Net", "HORQ",
    "Deep Compression", "Quantization Networks", "compact binary network", "Mixed bits",
    "Zero padding", "Fixup", "little or no data", "Initialization", "MobileNet", "NAS",
    "Distillation", "Pruning", "whitepaper", "FP16", "Fisher", "Continuous-discrete",
    # and newer ones
    "Percentile", "MSE", "ACIQ", "LAPQ", "cosine", "SeqMSE", "GPTQ", "OBQ", "Coordinate descent",
    "AdaRound", "HQQ", "k-quants", "NF4", "FP8", "MX formats", "Refitted", "bias correction",
    "equalization", "SmoothQuant", "AWQ", "Rotations", "SpinQuant", "AdaQuant", "BRECQ", "QDrop",
    "HAWQ", "ZeroQ", "ZeroQuant", "LSQ", "LSQ+", "OCS", "Norm Tweaking",
)  # fmt: skip

QUANTIZE = sorted({use for s in systems() for use in s.use if not use.startswith("ptq ")})
OTHERS = sorted({use for s in systems() for use in s.use if use.startswith("ptq ")})


@pytest.mark.parametrize("name", NAMED)
def test_every_system_that_is_named_has_a_row(name):
    assert any(name in system.name for system in systems())


def test_names_are_given_once():
    names = [system.name for system in systems()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("system", systems(), ids=lambda s: s.name)
def test_every_row_says_where_it_comes_from_and_why_it_is_here_or_not(system):
    assert len(system.paper) > 20
    for text in (system.good_for, system.out_of_scope):
        assert not text.endswith("."), "a phrase in a list"
    assert system.good_for or len(system.out_of_scope) > 40


def config(words, model):
    """Return the settings that options of `ptq quantize` describe."""
    context = quantize_command.command.make_context("quantize", [str(model), *words])
    with context:
        found = recipes.found(context)
        quantize_command.run_options_of(context.params, found)
        return quantize_command.config_of(context.params, found)


@pytest.mark.parametrize("use", QUANTIZE)
def test_options_are_settings_that_hold_together(use, digits):
    made = config(["--no-recipe", *shlex.split(use)], digits.model)
    made.require_known()
    if made.scheme == "weight-only":
        made.block_quantizer().require_width(made.bits)
    elif made.weight_method:
        parse_method(made.weight_method).require_width(made.bits)


@pytest.mark.parametrize("use", OTHERS)
def test_other_commands_parse(use):
    words = shlex.split(use)[1:]
    context = click.Context(_ptq, info_name="ptq")
    while isinstance(context.command, click.Group) and words:
        command = context.command.get_command(context, words.pop(0))
        assert command is not None, use
        context = click.Context(command, parent=context)
    given, _, _ = context.command.make_parser(context).parse_args(words)
    for parameter in context.command.params:
        if isinstance(parameter, click.Option) and given.get(parameter.name) is not None:
            parameter.type_cast_value(context, given[parameter.name])
    if "method" in given:
        QAT_METHODS.parse(given["method"])
    assert qat_commands.command.name == "qat"


def test_every_training_method_makes_a_system():
    for name in QAT_METHODS.methods():
        assert any(system.mentions(name) for system in systems()), name


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use": ("--smooth",)},
        {"use": ("--smooth",), "widths": "8", "good_for": "x", "out_of_scope": "y"},
        {"use": ("--smooth",), "out_of_scope": "y"},
    ],
)
def test_a_row_that_says_neither_or_both_is_refused(fields):
    with pytest.raises(ValueError, match="'A' needs use, widths and good_for, or out_of_scope"):
        System(name="A", paper="B", **fields)
