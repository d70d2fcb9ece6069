"""Decisions of a plan in place of others: what shares codes with a replaced one follows it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from ptq.plan.plan import Decision, Plan


def with_decisions(plan: Plan, decisions: Mapping[str, Decision]) -> Plan:
    """Return the plan with other decisions; doing it twice changes nothing more.

    A tensor that holds the codes of a replaced one reads them with the same multiple of the step as
    before. Where its zero point is another, which is then no code any more, it is quantized anew,
    as it was planned.

    Args:
        plan: what is planned.
        decisions: those to put in place, by tensor. One that shares the codes of another and is
            among them, is taken as it is; one of a tensor that stays in float is passed over.
    """
    decisions = {tensor: d for tensor, d in decisions.items() if tensor in plan.tensors}
    if not decisions:
        return plan
    tensors = {**plan.tensors, **decisions}
    for name, planned in plan.tensors.items():
        source = planned.observed
        if name in decisions or source == name or source not in decisions:
            continue
        tensors[name] = _following(name, planned, plan.tensors[source], decisions[source])
    return msgspec.structs.replace(plan, tensors=tensors)


def _following(name: str, planned: Decision, old: Decision, new: Decision) -> Decision:
    """Return the decision of a tensor that has the codes of another, where that one's is new."""
    if planned.zero_point != old.zero_point:
        moved = old.step != new.step or old.zero_point != new.zero_point or old.qtype != new.qtype
        return msgspec.structs.replace(planned, observed=name) if moved else planned
    factor = planned.step / old.step
    scale = new.step if factor == 1.0 else float(np.float32(new.step * factor))
    return msgspec.structs.replace(
        new,
        lo=new.lo * factor,
        hi=new.hi * factor,
        scale=scale,
        decode=None,
        clip_share=planned.clip_share,
        observed=new.observed,
    )
