"""The rules: each is a function in a file of its own, registered for the operators it rewrites."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Callable
from functools import cache

import onnx_ir as ir

from ptq.graph.emit_integer.rewriter import Rewriter

#: A rule rewrites the node and returns true, or returns false where the pattern is none of its own.
#: It raises `UnfitError` where the pattern is its own and cannot be fused.
Rule = Callable[[ir.Node, Rewriter], bool]

_PACKAGE = "ptq.graph.emit_integer.rules"

_RULES: dict[str, list[Rule]] = defaultdict(list)


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators of the standard domain.

    Several rules for one operator must exclude each other: no order among them is promised.
    """

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            _RULES[op_type].append(function)
        return function

    return register


@cache
def rules() -> dict[str, tuple[Rule, ...]]:
    """Return the rules of all files in ``rules``, by operator."""
    package = importlib.import_module(_PACKAGE)
    for module in pkgutil.iter_modules(package.__path__, f"{_PACKAGE}."):
        importlib.import_module(module.name)
    return {op_type: tuple(found) for op_type, found in _RULES.items()}
