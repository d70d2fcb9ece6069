"""The float model as the pipeline sees it: prepared, and known by its digest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ptq.data import InputSpec
from ptq.errors import UnsupportedError
from ptq.graph.describe import opset_of
from ptq.graph.load import input_specs, load_model, model_digest, model_files
from ptq.graph.normalize import normalize
from ptq.graph.sites import Sites
from ptq.graph.types import Model
from ptq.targets import Target

#: How many reasons an error about a model without sites lists.
_REASONS_SHOWN = 6


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A float model, ready to be observed and rewritten.

    Attributes:
        path: the file.
        model: the prepared graph; cloned before it is changed.
        inputs: what the model wants to be fed.
        digest: SHA-256 of the file and its external data.
        size_bytes: of both.
        prepared: what the prepare passes did.
        opset: version of the default operator set in the file.
    """

    path: Path
    model: Model
    inputs: tuple[InputSpec, ...]
    digest: str
    size_bytes: int
    prepared: tuple[str, ...]
    opset: int

    @property
    def folder(self) -> Path:
        """Where external data lies."""
        return self.path.parent


def open_source(path: Path) -> Source:
    """Load and prepare a float model.

    Raises:
        ModelError: the file is no valid model.
        UnsupportedError: it is, but is quantized already, or not float32.
    """
    model = load_model(path)
    specs, opset = tuple(input_specs(model)), opset_of(model)
    prepared = tuple(normalize(model))
    size = sum(p.stat().st_size for p in model_files(path))
    return Source(path, model, specs, model_digest(path), size, prepared, opset)


def require_sites(sites: Sites, source: Source, target: Target) -> None:
    """Refuse a model of which nothing would become integer, and say why not.

    Raises:
        UnsupportedError: there is no site.
    """
    if sites.sites:
        return
    reasons = Counter(
        (node.op_type, sites.why_float.get(node.name or "", "")) for node in source.model.graph
    )
    # the reasons that tell most come first: that there is no kernel holds for most of any graph
    ranked = sorted(reasons.items(), key=lambda r: (r[0][1].startswith("no integer"), -r[1]))
    listed = "; ".join(f"{n} {op}: {why}" for (op, why), n in ranked[:_REASONS_SHOWN])
    raise UnsupportedError(
        f"nothing in '{source.path.name}' can be quantized for target '{target.name}' "
        f"({listed or 'the graph is empty'}); `ptq inspect` gives the reason for every node"
    )
