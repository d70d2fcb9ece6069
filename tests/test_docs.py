"""What the documents say is checked against the code."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

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
from ptq.runtime.layer import Layer

ROOT = Path(__file__).parent.parent
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
]


@pytest.mark.parametrize("described", DESCRIBED, ids=lambda t: t.__name__)
def test_the_formats_page_names_every_field(described):
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    fields = [f.name for f in msgspec.inspect.type_info(described).fields]
    assert fields
    assert not [name for name in fields if f"`{name}`" not in page]


def test_the_changelog_has_an_unreleased_section():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
