"""Settle the shapes of inputs: over several models, and where an axis is dynamic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ptq.data.feeds import Dim, InputSpec, check_shape, fixed_dim, format_shape
from ptq.errors import ConfigError, DataError

#: An input and its shape, as ``--shape`` takes them.
_SHAPE = re.compile(r"((?P<name>.+)=)?(?P<shape>[1-9]\d*(x[1-9]\d*)*)", re.DOTALL)

#: Names that mean nothing: axes that have one of them need not be of one size.
_UNNAMED = ("", "?")


def common_inputs(models: Mapping[str, Sequence[InputSpec]]) -> tuple[InputSpec, ...]:
    """Return what all models can be fed: a dimension that one of them fixes is fixed.

    Args:
        models: the inputs of each model, by what the model is called in an error.

    Raises:
        ConfigError: they have not the same inputs, or not of one type and shape.
    """
    (first, specs), *others = models.items()
    common = {spec.name: spec for spec in specs}
    for name, wanted in others:
        if {spec.name for spec in wanted} != set(common):
            raise ConfigError(
                f"the inputs of '{name}' are {_listed(wanted)}, those of '{first}' "
                f"{_listed(specs)}; only models with the same inputs can be compared"
            )
        for spec in wanted:
            common[spec.name] = _both(common[spec.name], spec, first, name)
    return tuple(common.values())


@dataclass(frozen=True, slots=True)
class Settled:
    """Inputs without dynamic axes.

    Attributes:
        inputs: the inputs, every shape fixed.
        notices: what was taken for granted, a line each.
    """

    inputs: tuple[InputSpec, ...]
    notices: tuple[str, ...]


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that texts like ``image=1x3x224x224`` give, by input.

    Raises:
        ConfigError: a text is not of that form, or an input has two.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise ConfigError(f"--shape: '{text}' is not NAME=SIZExSIZE; write image=1x3x224x224")
        name = match["name"] or ""
        if name in shapes:
            raise ConfigError(f"--shape gives input '{name}' twice; give each once")
        shapes[name] = tuple(map(int, match["shape"].split("x")))
    return shapes


def settle_shapes(inputs: Sequence[InputSpec], given: Mapping[str, tuple[int, ...]]) -> Settled:
    """Return the inputs with the shapes that were given, and 1 where the batch is dynamic.

    A dynamic axis that has the name of another one, of known size, is of that size. The leading
    axis is taken for the batch.

    Args:
        inputs: what the models want.
        given: shapes by input; the key of the only input may be empty.

    Raises:
        ConfigError: a shape does not fit, or an axis has no size.
    """
    shapes = _by_input(inputs, given)
    known = _known(inputs, shapes)
    notices = []
    settled = []
    for spec in inputs:
        shape = shapes.get(spec.name)
        if shape is None:
            shape, batch = _settle(spec, known)
            if batch is not None:
                called = f" ('{batch}')" if batch not in _UNNAMED else ""
                notices.append(
                    f"axis 0{called} of input '{spec.name}' is taken as 1; "
                    f"give --shape {_option(spec, shape)} for another batch"
                )
        settled.append(replace(spec, shape=shape))
    return Settled(tuple(settled), tuple(notices))


def _listed(specs: Sequence[InputSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs) or "none"


def _both(a: InputSpec, b: InputSpec, first: str, name: str) -> InputSpec:
    """Return what fits one input of two models."""
    where = f"input '{a.name}' is %s in '{first}' and %s in '{name}'"
    remedy = "only models with the same inputs can be compared"
    if a.dtype != b.dtype:
        raise ConfigError(f"{where % (a.dtype, b.dtype)}; {remedy}")
    if a.shape is None or b.shape is None:
        return b if a.shape is None else a
    both = f"{where % (format_shape(a.shape), format_shape(b.shape))}; {remedy}"
    if len(a.shape) != len(b.shape):
        raise ConfigError(both)
    dims: list[Dim] = []
    for x, y in zip(a.shape, b.shape, strict=True):
        fixed = {d for d in (fixed_dim(x), fixed_dim(y)) if d is not None}
        if len(fixed) > 1:
            raise ConfigError(both)
        dims.append(fixed.pop() if fixed else x)
    return replace(a, shape=tuple(dims))


def _by_input(
    inputs: Sequence[InputSpec], given: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the given shapes by input, after checking that they fit."""
    specs = {spec.name: spec for spec in inputs}
    found = {}
    for name, shape in given.items():
        if not name and len(inputs) != 1:
            raise ConfigError(
                f"--shape {_times(shape)} does not say of which input; "
                f"write --shape NAME={_times(shape)} for one of: {', '.join(specs) or 'none'}"
            )
        spec = specs.get(name) if name else inputs[0]
        if spec is None:
            raise ConfigError(
                f"--shape: there is no input '{name}'; choose from: {', '.join(specs) or 'none'}"
            )
        try:
            check_shape(shape, spec, "--shape")
        except DataError as error:
            raise ConfigError(str(error)) from error
        found[spec.name] = shape
    return found


def _known(inputs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes of the named axes of the shapes that were given."""
    known: dict[str, int] = {}
    for spec in inputs:
        for dim, size in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False):
            if isinstance(dim, str) and dim not in _UNNAMED:
                known.setdefault(dim, size)
    return known


def _settle(spec: InputSpec, known: Mapping[str, int]) -> tuple[tuple[int, ...], str | None]:
    """Return a shape, and what the axis is called that was taken for the batch, if one was."""
    if spec.shape is None:
        raise ConfigError(
            f"input '{spec.name}' does not say its rank; give --shape {spec.name}=1x3x224x224"
        )
    shape: list[int] = []
    batch = None
    for axis, dim in enumerate(spec.shape):
        size = fixed_dim(dim)
        if size is None and isinstance(dim, str):
            size = known.get(dim)
        if size is None and axis == 0:
            batch = dim if isinstance(dim, str) else ""
            size = 1
        if size is None:
            called = f" ('{dim}')" if isinstance(dim, str) and dim not in _UNNAMED else ""
            raise ConfigError(
                f"axis {axis}{called} of input '{spec.name}' is dynamic, "
                f"{format_shape(spec.shape)}; give its size as in --shape "
                f"{_option(spec, spec.shape)}, or real inputs as data"
            )
        shape.append(size)
    return tuple(shape), batch


def _option(spec: InputSpec, shape: Sequence[Dim]) -> str:
    """Return an example of a shape as the option takes it."""
    sizes = [fixed_dim(d) or (1 if axis == 0 else 64) for axis, d in enumerate(shape)]
    return f"{spec.name}={_times(sizes)}"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
