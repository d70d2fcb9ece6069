"""The plan: what becomes integer, with which scale and zero point, and why the rest does not.

A plan is plain data. Planning reads statistics and writes a plan; emitting reads a plan and the
weights, and nothing else. So plans can be printed, compared, cached and searched over.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from ptq.numerics.qtype import QType

#: Raised whenever a field changes its meaning; a plan of another schema is refused.
SCHEMA = 1


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How one activation tensor is quantized (per tensor: the kernels take one scale).

    Attributes:
        qtype: the grid, such as ``uint8``. Its codes are held in ``QType.storage``: those of a
            grid of 4 bits in uint8, clipped.
        lo: lower end of the clipping range that the solver chose.
        hi: upper end of it.
        scale: the float32 step.
        zero_point: the code of 0.0.
        clip_share: the share of observed values outside ``lo..hi``, in 0..1.
        observed: the tensor whose statistics were used; another one's where a scale is shared.
        decode: the float32 step that codes stand for, where it is not that with which they are
            made: quantization interval learning trains both (QIL, CVPR 2019). ``None`` where it is.
        levels: the only codes that there may be, ascending; empty if all of the grid.
        starts: the first code that becomes each level but the lowest; empty where codes are not
            looked up, because there are no levels or because another tensor's codes are shared.
    """

    qtype: str
    lo: float
    hi: float
    scale: float
    zero_point: int
    clip_share: float
    observed: str
    decode: float | None = None
    levels: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    @property
    def bits(self) -> int:
        """How many bits tell a code from the others that there may be."""
        if self.levels:
            return max(1, (len(self.levels) - 1).bit_length())
        return QType.parse(self.qtype).bits

    @property
    def values(self) -> tuple[float, ...]:
        """What the levels stand for."""
        return tuple((code - self.zero_point) * self.step for code in self.levels)

    @property
    def step(self) -> float:
        """The step that codes stand for."""
        return self.scale if self.decode is None else self.decode


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one node.

    Attributes:
        name: the node's name after preparation.
        op_type: its operator.
        integer: whether it is to run as an integer kernel.
        why: the reason when it is not; empty when it is.
        weight: name of the constant weight, for linear operators.
        weight_symmetric: whether that weight has zero point 0.
    """

    name: str
    op_type: str
    integer: bool
    why: str = ""
    weight: str | None = None
    weight_symmetric: bool = True


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All decisions for one model.

    Attributes:
        target: the target the plan was made for.
        tensors: decision by activation tensor.
        nodes: one entry for every node of the main graph, in graph order.
        schema: version of this format.
    """

    target: str
    tensors: dict[str, Decision]
    nodes: tuple[NodePlan, ...]
    schema: int = SCHEMA

    @property
    def integer_nodes(self) -> frozenset[str]:
        """Names of the nodes that are to run as integer kernels."""
        return frozenset(n.name for n in self.nodes if n.integer)

    def reasons(self) -> Counter[tuple[str, str]]:
        """Count the nodes left in float by (operator, reason)."""
        return Counter((n.op_type, n.why) for n in self.nodes if not n.integer)

    def to_json(self) -> bytes:
        """Return the plan as JSON with sorted keys: the same plan, the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=2)
