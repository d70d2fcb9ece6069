"""Every decision of a quantization, with its reason, as data."""

from ptq.plan.plan import Decision, NodePlan, Plan

__all__ = ["Decision", "NodePlan", "Plan"]
