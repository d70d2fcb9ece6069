"""What the documents say is checked against the code."""

from __future__ import annotations

import importlib.util
import re
from functools import cache

import click
import msgspec
import pytest
from support.cli import ptq
from support.documents import PAGES, ROOT, blocks, commands, inline_commands, prose

from ptq import errors
from ptq.baseline import Baseline, Entry
from ptq.calibration import Header
from ptq.evaluate.accuracy import Accuracy, OutputError
from ptq.evaluate.latency import Latency, Timing
from ptq.report import (
    Candidate,
    DataInfo,
    Environment,
    FileInfo,
    FloatNodes,
    Output,
    Placement,
    Report,
    TensorInfo,
)
from ptq.report.batch import Batch, BatchRow
from ptq.report.check import Check, Fault, Figure, Held
from ptq.report.comparison import Comparison, LayerError
from ptq.report.dry_run import DryRun, PresetForecast
from ptq.report.sensitivity import KeptFloat, PartDamage, Ranking, Sensitivity
from ptq.report.tuning import TunedPoint, Tuning
from ptq.runtime.layer import Layer
from ptq.search.trials import Damage
from ptq.train.data_folder import DataIndex
from ptq.train.job import Evaluation, Result
from ptq.train.manifest import Loss, Manifest, TrainedArray, Untrained

PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

DESCRIBED = [
    Report,
    Environment,
    FileInfo,
    DataInfo,
    FloatNodes,
    TensorInfo,
    Accuracy,
    OutputError,
    Latency,
    Timing,
    Header,
    Output,
    Placement,
    Candidate,
    Layer,
    Comparison,
    LayerError,
    Sensitivity,
    PartDamage,
    Ranking,
    KeptFloat,
    Damage,
    Check,
    DryRun,
    PresetForecast,
    Figure,
    Held,
    Fault,
    Baseline,
    Entry,
    Batch,
    BatchRow,
    Tuning,
    TunedPoint,
]


@pytest.mark.parametrize("described", DESCRIBED, ids=lambda t: t.__name__)
def test_the_formats_page_names_every_field(described):
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    fields = [f.name for f in msgspec.inspect.type_info(described).fields]
    assert fields
    assert not [name for name in fields if f"`{name}`" not in page]


@pytest.mark.parametrize(
    "described", [Manifest, TrainedArray, Untrained, Loss, Result, Evaluation, DataIndex],
    ids=lambda t: t.__name__,
)  # fmt: skip
def test_the_training_page_names_every_field(described):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    fields = [f.name for f in msgspec.inspect.type_info(described).fields]
    assert fields
    assert not [name for name in fields if f"`{name}`" not in page]


def reference():
    """Return the module that writes docs/cli.md."""
    place = ROOT / "scripts" / "write_cli_reference.py"
    spec = importlib.util.spec_from_file_location("write_cli_reference", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_reference_is_fresh():
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference().page(), "docs/cli.md is stale; run make docs"


def test_the_command_line_reference_depends_on_no_machine(monkeypatch):
    from ptq.cli.main import _ptq

    text = reference().page()
    found = 0
    for name in _ptq.list_commands(None):
        for parameter in _ptq.get_command(None, name).params:
            if parameter.name == "threads":
                monkeypatch.setattr(parameter, "default", 4321)
                found += 1
    assert found
    assert reference().page() == text


@cache
def anchors(page):
    """Return what GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in plain}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", prose(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: there is no {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: there is no heading for {link}"


def resolve(words):
    """Return the context of the command that words name, and the words after its name."""
    from ptq.cli.main import _ptq

    context = click.Context(_ptq, info_name="ptq")
    while isinstance(context.command, click.Group) and words and not words[0].startswith("-"):
        command = context.command.get_command(context, words[0])
        assert command is not None, f"there is no command '{' '.join(words)}'"
        settings = command.context_settings
        context = click.Context(command, info_name=words[0], parent=context, **settings)
        words = words[1:]
    return context, words


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_command_lines_parse(page):
    for words in commands(page):
        context, arguments = resolve(words)
        given, _, _ = context.command.make_parser(context).parse_args(list(arguments))
        for parameter in context.command.params:
            value = given.get(parameter.name)
            if isinstance(value, str | list) and not isinstance(parameter, click.Argument):
                parameter.type_cast_value(context, value)  # a choice, or a number
            if isinstance(parameter, click.Argument) and parameter.required and arguments:
                assert value is not None, f"{' '.join(words)}: {parameter.name} is missing"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_options_in_the_text_exist(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("it speaks of earlier versions")
    for words in inline_commands(page):
        named = words[0].islower() and not words[0].startswith("-")
        contexts = [resolve(words)[0]] if named else every_command()
        known = {o for c in contexts for p in c.command.params for o in p.opts + p.secondary_opts}
        for word in words:
            option = word.strip("[],.").partition("=")[0]
            if option.startswith("--") and option != "--help":
                assert option in known, f"`ptq {' '.join(words)}`: no option {option}"


def every_command():
    """Return the contexts of all commands, for text that names an option without one."""
    from ptq.cli.main import _ptq

    root = click.Context(_ptq, info_name="ptq")
    return [root, *(resolve([name])[0] for name in _ptq.list_commands(root))]


def real_codes():
    """Return the exit codes of the program: of success, of every error, and of Ctrl-C."""
    from ptq.cli.main import INTERRUPTED

    found = (e for e in vars(errors).values() if isinstance(e, type))
    return {0, INTERRUPTED} | {e.exit_code for e in found if issubclass(e, errors.PtqError)}


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_the_exit_codes_are_the_real_ones(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    listed = re.search(r"Exit codes: (.*?)\. |## Exit codes (.*?) ##", text)
    said = re.findall(r"(?:^|, |\| )(\d+) ", listed[1] or listed[2])
    assert {int(code) for code in said} == real_codes()


def test_each_exit_code_is_met_for_what_is_said_of_it(digits, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert ptq("inspect", digits.model).code == 0
    assert ptq("inspect", broken).code == 1
    assert ptq("inspect", digits.model, "--no-such-option").code == 2
    assert ptq("inspect", digits.model, "--target", "none").code == 2
    held = ["--data", digits.evaluation, "--samples", "8", "--min-sqnr", "1000"]
    bare = ["check", digits.model, broken]
    assert ptq(*bare, *held).code == 1
    output = tmp_path / "out.onnx"
    quantized = ["quantize", digits.model, "--calib-data", digits.calibration, "--place", "all"]
    assert ptq(*quantized, "-o", output, "--seconds", "0.05").code == 0
    assert ptq("check", digits.model, output, *held).code == 3


def test_the_ten_minutes_go_as_they_are_told(digits, tmp_path, monkeypatch):
    page = ROOT / "docs" / "getting-started.md"
    for path in (digits.model, digits.calibration, digits.evaluation):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTQ_QUANTIZE_SECONDS", "0.05")
    settings, codes, said = "", [], []
    for block in blocks(page)[1:]:  # the first one installs
        if block.text.startswith("ptq quantize classifier.onnx"):
            break
        if block.language == "toml":
            settings = settings or block.text
            override = "" if block.text == settings else block.text
            (tmp_path / "ptq.toml").write_text(settings + override, encoding="utf-8")
        elif block.language == "sh":
            for line in block.text.splitlines():
                done = ptq(*line.split()[1:])
                codes.append(done.code)
                said.append(done.out)
    assert codes == [0, 0, 0, 3, 0, 0, 0]
    layers_at_fault = said[3].partition("layers at fault")[2].splitlines()
    assert layers_at_fault[1].split()[0] == "block2.project.conv"
    assert said[4].splitlines()[1].endswith("block2.project.conv")


def test_the_changelog_has_an_unreleased_section():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
