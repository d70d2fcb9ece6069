"""Write factors of channels into the weights around them, and keep them as a few bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.passes.edit import Initializers, constant
from ptq.graph.rescale.groups import Group, find_groups
from ptq.graph.rescale.linear import Float64

#: Factors are ``2^(k / 8)``: 4 % off at most, which no range notices, and a byte each to keep.
_STEPS = 8

#: From 2^-15 to 2^15.
_MOST = 120


class _Rescaled(Protocol):
    """What has a factor for each of its channels."""

    @property
    def channels(self) -> int:
        """How many channels it has."""


S = TypeVar("S", bound=_Rescaled)

#: The factors of each group by its name: text of one signed byte for each channel.
Factors = dict[str, str]


def encode(scale: Float64) -> str:
    """Return the nearest factors that can be kept, as text.

    Args:
        scale: positive, one for each channel.
    """
    steps = np.clip(np.rint(np.log2(scale) * _STEPS), -_MOST, _MOST).astype(np.int8)
    return base64.b64encode(steps.tobytes()).decode()


def decode(text: str) -> Float64:
    """Return the factors of a text.

    Raises:
        ValueError: it is none.
    """
    steps = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
    return np.exp2(steps / _STEPS)


def apply_factors(model: ir.Model, factors: Mapping[str, str]) -> None:
    """Divide the tensors of groups by their factors, and leave the function as it is.

    Weights and biases of what makes them are divided, weights of what reads them multiplied.

    Args:
        model: the prepared model, changed in place.
        factors: by the name of the group's first tensor.

    Raises:
        ModelError: the factors are of another model.
    """
    groups = {group.name: group for group in find_groups(model)}
    constants = Initializers(model)
    for group, scale in fitting(groups, factors):
        _apply(group, scale, constants)


def fitting(found: Mapping[str, S], factors: Mapping[str, str]) -> Iterator[tuple[S, Float64]]:
    """Yield what each text of factors is for, with the factors.

    Args:
        found: what can be rescaled, by the name that the factors have.
        factors: as `encode` writes them.

    Raises:
        ModelError: the factors are of another model.
    """
    for name, text in factors.items():
        scaled, scale = found.get(name), _decoded(text)
        if scaled is None or scale is None or scale.size != scaled.channels:
            raise ModelError(
                f"the factors of tensor '{name}' do not fit this model; they are of another one, "
                "or were made by another version of ptq: quantize it again"
            )
        yield scaled, scale


def _decoded(text: str) -> Float64 | None:
    try:
        return decode(text)
    except ValueError:
        return None


def _apply(group: Group, scale: Float64, constants: Initializers) -> None:
    for maker in group.makers:
        maker.scale(constants, 1 / scale, None)
    for reader in group.readers:
        reader.scale(constants, None, scale)
    for node, index in group.shifts:
        array = constant(node.inputs[index])
        assert array is not None
        divided = array.reshape(-1).astype(np.float64) / scale
        shift = divided.reshape(array.shape).astype(array.dtype)
        constants.assign(node, index, shift, f"{node.name}.shift")
