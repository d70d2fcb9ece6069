"""The recipe in a quantized model: what made it, and makes it again, to the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ptq import __version__
from ptq.config import QuantizeConfig
from ptq.data import ImageOptions
from ptq.errors import ConfigError, ModelError
from ptq.targets import load_target, target_names

#: The metadata property that holds it.
PROPERTY = "ptq"

#: Why a node stays in float that a placement keeps there.
PINNED = "kept in float by the placement that was given"


class PinnedPlacement(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """What a run decided by measuring; with it, another run writes the same without measuring.

    Attributes:
        keep_float: nodes that stay in float beside those that the settings keep there, sorted.
        variants: by variant, the nodes that are written in it, sorted.
        convolutions: whether ``dynamic`` computes convolutions in integers, but for those.
        unpacked: whether the weights of ``weight-only`` are all unpacked when the model is loaded.
    """

    keep_float: tuple[str, ...] = ()
    variants: dict[Literal["stem", "shift"], tuple[str, ...]] = {}
    convolutions: bool = False
    unpacked: bool = False

    @classmethod
    def of(
        cls, keep_float: Iterable[str], variants: Mapping[str, Literal["stem", "shift"]]
    ) -> PinnedPlacement:
        """Return the placement of a static model.

        Args:
            keep_float: nodes that stay in float.
            variants: by node.
        """
        named: dict[Literal["stem", "shift"], tuple[str, ...]] = {}
        for node in sorted(variants):
            named[variants[node]] = (*named.get(variants[node], ()), node)
        return cls(keep_float=tuple(sorted(keep_float)), variants=named)

    def reasons(self) -> dict[str, str]:
        """Return the nodes that it keeps in float, with that as the reason."""
        return dict.fromkeys(self.keep_float, PINNED)

    def variant_of(self) -> dict[str, Literal["stem", "shift"]]:
        """Return the variants by node."""
        return {node: variant for variant, nodes in self.variants.items() for node in nodes}

    def require_nodes(self, nodes: Iterable[str]) -> None:
        """Refuse names that are none of a model's.

        Raises:
            ConfigError: the placement is of another model, or prepared by another version.
        """
        known = frozenset(nodes)
        for name in (*self.keep_float, *self.variant_of()):
            if name not in known:
                raise ConfigError(
                    f"the placement names '{name}', which is no node of this model; give the model "
                    "and the version of ptq that the recipe was made with, or no placement"
                )


class EmbeddedRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What made a quantized model, without times or paths.

    Attributes:
        ptq: the version that made it.
        config: the settings; ``format`` is the one of this file.
        model_sha256: of the float model, with its external data.
        placement: what was decided by measuring.
        data_sha256: of the calibration feeds; ``None`` if there was nothing to calibrate.
        samples: how many of them there were.
        random_data: whether they were random numbers.
        images: how images were prepared, if the calibration data was images and this was given.
        schema: version of this format; raised whenever a field changes its meaning or goes away.
    """

    ptq: str
    config: QuantizeConfig
    model_sha256: str
    placement: PinnedPlacement
    data_sha256: str | None = None
    samples: int | None = None
    random_data: bool = False
    images: ImageOptions | None = None
    schema: Literal[1] = 1

    def to_json(self) -> str:
        """Return the text of the metadata property: the same recipe, the same text."""
        return msgspec.json.encode(self, order="sorted").decode()


def read_recipe(path: str | os.PathLike[str]) -> EmbeddedRecipe:
    """Return the recipe in a quantized model.

    Raises:
        ModelError: the file is no model, or has no recipe that this version can read.
    """
    from ptq.graph.quantized import read_quantized

    text = read_quantized(Path(path)).metadata_props.get(PROPERTY)
    if text is None:
        raise ModelError(
            f"'{path}' holds no recipe: it was not made by `ptq quantize`, or is the float model "
            "that was kept because nothing was faster"
        )
    return _decoded(text, path)


def is_simulated(metadata: Mapping[str, str]) -> bool:
    """Return whether `ptq` made a model for another runtime than onnxruntime.

    Here it can only be run as it is written, without this machine's integer kernels.

    Args:
        metadata: the properties of the model.
    """
    try:
        target = msgspec.json.decode(metadata.get(PROPERTY, "{}"))["config"]["target"]
    except (msgspec.DecodeError, KeyError, TypeError):  # somebody else's property of that name
        return False
    return target in target_names() and load_target(target).runtime != "onnxruntime"


def _decoded(text: str, path: object) -> EmbeddedRecipe:
    try:
        made_by = msgspec.json.decode(text, type=_Version)
    except msgspec.DecodeError as error:
        raise ModelError(
            f"the metadata property '{PROPERTY}' of '{path}' is no recipe: {error}"
        ) from error
    try:
        return msgspec.json.decode(text, type=EmbeddedRecipe)
    except (msgspec.DecodeError, ConfigError) as error:
        raise ModelError(
            f"the recipe in '{path}' cannot be read: {error}; it was made by ptq {made_by.ptq}, "
            f"this is {__version__}"
        ) from error


class _Version(msgspec.Struct):
    """The one field of a recipe that every version can read."""

    ptq: str
