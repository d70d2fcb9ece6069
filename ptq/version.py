"""One way of quantizing a model, written and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ptq.config import FileFormat
from ptq.embedded import PinnedPlacement
from ptq.graph.emit_qdq import Emitted
from ptq.graph.variants import Variant
from ptq.place.costs import Region
from ptq.plan import Plan
from ptq.report.refinement import Refinement
from ptq.runtime.coverage import Coverage


@dataclass(frozen=True, slots=True)
class Version:
    """A quantized model file.

    Attributes:
        keep_float: nodes that stay in float beside those that cannot be integer, with the reason.
        plan: the decisions.
        emitted: what emitting did.
        coverage: what the runtime made of it.
        regions: what is integer, as it can be placed.
        variants: the nodes that are written in another form.
        refinements: what looking at outputs changed, step by step.
    """

    keep_float: Mapping[str, str]
    plan: Plan
    emitted: Emitted
    coverage: Coverage
    regions: tuple[Region, ...]
    variants: Mapping[str, Variant] = field(default_factory=dict)
    refinements: tuple[Refinement, ...] = ()


class Writer(Protocol):
    """Writes a model in integers, but for the nodes that are to stay in float."""

    def write(
        self,
        path: Path,
        form: FileFormat,
        keep_float: Mapping[str, str] | None = None,
        variants: Mapping[str, Variant] | None = None,
    ) -> Version:
        """Write a version and ask the runtime about it."""

    def write_pinned(self, path: Path, form: FileFormat, placement: PinnedPlacement) -> Version:
        """Write just what a placement says, and take nothing else back to float."""

    def variants(self) -> Mapping[str, Variant]:
        """Return which nodes could be written in another form that may be faster."""
