"""The target description: which operators become integer kernels, in which types, at what price."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

import msgspec

from ptq.errors import ConfigError

Role = Literal["linear", "elementwise", "move", "rescale", "table"]


class OpRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one operator of the default ONNX domain takes part in an integer graph.

    Attributes:
        role: ``linear`` operators (a constant weight) start integer regions; ``elementwise`` ones
            compute on codes and requantize; ``move`` ones copy codes, so that input and output
            share one scale. These two become integer only between integer neighbours: alone,
            the QuantizeLinear around them costs more than they save. ``rescale`` operators
            multiply by a constant, and need no kernel: the codes stay, and their scale changes.
            ``table`` operators look rows up in a constant, which is stored as codes; what they
            put out is float.
        weight: index of the constant weight input, for ``linear`` and ``table``.
        bias: index of the bias input, for ``linear``.
        inputs: how many leading inputs are activations; the rest are parameters (shapes, axes).
            ``0`` means all of them.
        output: whether the kernel must requantize its output; where it need not, the output stays
            float unless an integer consumer wants it.
        absorbs: whether a following Relu or Clip may be absorbed into the requantization.
        after: operators one of which must have produced the input for the kernel to be fast.
        rescales: whether an ``elementwise`` operator is a ``rescale`` one where its other operand
            is a positive constant.
        when: attribute values the kernel demands; an absent attribute has its ONNX default.
        asymmetric_depthwise: whether depthwise weights may have zero points other than 0.
        saturates: whether the kernel adds the products of neighbouring inputs two by two in 16
            bits that saturate; weights must then be small enough (`ptq.numerics.pairs`).
        asymmetric: whether weights may have zero points other than 0.
        per_channel: whether the weight may have a scale for each output channel.
        integer_bias: whether the bias is int32 at the scale of the products, or stays in float.
        clips_codes: whether a Clip may follow QuantizeLinear where saturation does not do what an
            absorbed Relu or Clip did; where not, Relu and Clip stay in the graph, before it.
        fuses: whether the kernel is merged into the linear operator that computes one of its
            operands, which then stays in float (a residual Add).
    """

    role: Role
    weight: int | None = None
    bias: int | None = None
    inputs: int = 1
    output: bool = True
    absorbs: bool = False
    after: tuple[str, ...] = ()
    rescales: bool = False
    when: dict[str, int | float | str] = {}
    asymmetric_depthwise: bool = True
    saturates: bool = False
    asymmetric: bool = True
    per_channel: bool = True
    integer_bias: bool = True
    clips_codes: bool = True
    fuses: bool = False


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A backend: its integer types and the rule of every operator it runs in integers.

    Attributes:
        name: the file's stem.
        title: one line for people.
        activation: the type of activation codes, such as ``uint8``.
        weight: the type of weight codes, such as ``int8``.
        runtime: what can be asked, on the machine at hand, how it runs a model: onnxruntime, or
            nothing. What its optimizers would undo is kept apart only for it.
        activation_symmetric: whether activations must have their zero point in the middle.
        ops: rules by operator type; an operator without a rule stays in float.
        left_float: why operators that a user might expect stay in float.
    """

    name: str
    title: str
    activation: str
    weight: str
    runtime: Literal["onnxruntime", ""] = ""
    activation_symmetric: bool = False
    ops: dict[str, OpRule]
    left_float: dict[str, str] = {}

    @property
    def saturates(self) -> bool:
        """Whether some kernels add products of two weights in 16 bits."""
        return any(rule.saturates for rule in self.ops.values())


def target_names() -> list[str]:
    """Return the names of the targets that ship with `ptq`, sorted."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Return the target of that name.

    Raises:
        ConfigError: there is no such target.
    """
    if name not in target_names():
        raise ConfigError(f"unknown target '{name}'; choose one of: {', '.join(target_names())}")
    return msgspec.convert({**_fields(name), "name": name}, Target)


def _fields(name: str) -> dict[str, Any]:
    """Return what a target file says, laid over the one that it extends."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_bytes()
    fields: dict[str, Any] = msgspec.toml.decode(text)
    base = fields.pop("extends", None)
    return fields if base is None else _over(_fields(base), fields)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of a file with those of another laid over them, key by key."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            value = _over(inner, value)
        merged[key] = value
    return merged
