"""The float model as the pipeline sees it: prepared, and known by its digest."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ptq.config import QuantizeConfig
from ptq.data import InputSpec
from ptq.errors import ConfigError, UnsupportedError
from ptq.graph.describe import opset_of
from ptq.graph.held import values_by_name
from ptq.graph.load import input_specs, load_model, model_digest, model_size
from ptq.graph.marginals import normals_of
from ptq.graph.normalize import normalize
from ptq.graph.rescale.record import NOTHING, Rescaling
from ptq.graph.sites import Sites, find_sites
from ptq.graph.types import Model
from ptq.numerics.marginal import Normal
from ptq.overrides import Overrides
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
        rescaling: by what channels were divided after preparing.
        normals: what batchnorms, folded or not, tell of the channels of tensors, by name.
    """

    path: Path
    model: Model
    inputs: tuple[InputSpec, ...]
    digest: str
    size_bytes: int
    prepared: tuple[str, ...]
    opset: int
    rescaling: Rescaling = NOTHING
    normals: Mapping[str, Normal] = field(default_factory=dict)

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
    normals = normals_of(model)  # preparing folds batchnorms, but tensors keep their names
    prepared = tuple(normalize(model))
    kept = values_by_name(model.graph)
    normals = {name: normal for name, normal in normals.items() if name in kept}
    size = model_size(path)
    digest = model_digest(path)
    return Source(path, model, specs, digest, size, prepared, opset, normals=normals)


def find_configured_sites(
    model: Model,
    target: Target,
    config: QuantizeConfig,
    keep_float: Mapping[str, str] | None = None,
) -> Sites:
    """Return the sites of a prepared model under these settings.

    Args:
        model: the graph.
        target: what the backend runs.
        config: which operators the user wants.
        keep_float: further nodes that stay in float, with the reason.

    Raises:
        ConfigError: a glob, an operator type or an override is wrong.
    """
    return find_sites(
        model,
        target,
        op_types=config.op_types,
        exclude=config.exclude,
        keep_float={
            **_by_hand(model, config.placed_globs),
            **Overrides(model, config).kept_float(),
            **(keep_float or {}),
        },
        dyadic=config.power_of_two,
    )


def not_placed(model: Model, config: QuantizeConfig) -> dict[str, str]:
    """Return the nodes that the user keeps in float, with the reason; for schemes without sites.

    Raises:
        ConfigError: a glob or an override matches no node.
    """
    kept = {**_by_hand(model, config.placed_globs), **Overrides(model, config).kept_float()}
    for node in model.graph:
        if config.op_types and node.op_type not in config.op_types:
            kept[node.name or ""] = "not among --op-types"
    names = [node.name or "" for node in model.graph]
    for glob in config.exclude:
        kept.update(dict.fromkeys(_matched(names, glob, "--exclude"), "excluded by --exclude"))
    return kept


def _by_hand(model: Model, globs: tuple[str, ...]) -> dict[str, str]:
    """Return the nodes that no glob of ``--place`` matches, with that as the reason."""
    if not globs:
        return {}
    names = [node.name or "" for node in model.graph]
    placed: set[str] = set()
    for glob in globs:
        placed.update(_matched(names, glob, "--place"))
    return {name: "not among --place" for name in names if name not in placed}


def _matched(names: list[str], glob: str, option: str) -> list[str]:
    matched = fnmatch.filter(names, glob)
    if not matched:
        raise ConfigError(f"{option} '{glob}' matches no node; `ptq inspect` lists the node names")
    return matched


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
        f"({listed or 'the graph is empty'}); `ptq inspect` gives the reason for every node, "
        "and --scheme dynamic or weight-only may still make it smaller"
    )
