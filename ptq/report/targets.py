"""The targets there are, from their files: what `ptq targets` lists."""

from __future__ import annotations

from textwrap import wrap

import msgspec

from ptq.report.table import aligned

#: As wide as what `ptq` prints elsewhere.
_WIDTH = 100


class TargetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One target.

    Attributes:
        name: what ``--target`` takes.
        title: one line.
        here: whether it describes this machine, so that ``--target auto`` is it.
        activation: the type of activation codes, such as ``uint8``.
        activation_symmetric: whether activations have their zero point in the middle.
        weight: the type of weight codes.
        bias: ``int32`` or ``float32``.
        saturates: whether weights are made to fit kernels that add in 16 bits.
        operators: the operator types that become integer.
    """

    name: str
    title: str
    here: bool
    activation: str
    activation_symmetric: bool
    weight: str
    bias: str
    saturates: bool
    operators: tuple[str, ...]


def all_targets() -> list[TargetInfo]:
    """Return every target that ships with `ptq`."""
    from ptq.runtime.host import host_target
    from ptq.targets import load_target, target_names

    here = host_target()
    found = []
    for target in map(load_target, target_names()):
        rules = target.ops.values()
        found.append(
            TargetInfo(
                name=target.name,
                title=target.title,
                here=target.name == here,
                activation=target.activation,
                activation_symmetric=target.activation_symmetric,
                weight=target.weight,
                bias="int32" if all(r.integer_bias for r in rules) else "float32",
                saturates=any(r.saturates for r in rules),
                operators=tuple(sorted(target.ops)),
            )
        )
    return found


def targets_text(targets: list[TargetInfo]) -> str:
    """Return what `ptq targets` prints."""
    head = ("", "target", "activations", "weights", "biases", "")
    rows = [head, *(_row(t) for t in targets)]
    lines = aligned(rows, words=len(head) - 1)
    told = [lines[0]]
    for line, target in zip(lines[1:], targets, strict=True):
        told.append(line)
        told += [f"     {text}" for text in wrap(target.title, _WIDTH - 5)]
        told += [f"     {text}" for text in wrap(", ".join(target.operators), _WIDTH - 5)]
    return "\n".join([*told, "", "* this machine: what --target auto is"])


def _row(target: TargetInfo) -> tuple[str, ...]:
    return (
        "*" if target.here else " ",
        target.name,
        target.activation + (" symmetric" if target.activation_symmetric else ""),
        target.weight,
        target.bias,
        "weights that cannot saturate" if target.saturates else "",
    )
