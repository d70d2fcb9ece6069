"""Bring a model into the form that quantization expects, keeping its float function."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from ptq.graph import check
from ptq.graph.passes.base import Outcome, Rewrite
from ptq.graph.passes.fix_names import FixNames
from ptq.graph.passes.fold_affine import FoldAffine
from ptq.graph.passes.fold_batchnorm import FoldBatchNorm
from ptq.graph.passes.fold_constants import FoldConstants
from ptq.graph.passes.fold_pad import FoldPad
from ptq.graph.passes.fold_shapes import FoldShapes
from ptq.graph.passes.fuse_hardswish import FuseHardSwish
from ptq.graph.passes.infer_shapes import InferShapes
from ptq.graph.passes.inline_functions import InlineFunctions
from ptq.graph.passes.lift_constants import LiftConstants
from ptq.graph.passes.merge_duplicates import MergeDuplicates
from ptq.graph.passes.merge_reshapes import MergeReshapes
from ptq.graph.passes.remove_dead import RemoveDead
from ptq.graph.passes.remove_initializer_inputs import RemoveInitializerInputs
from ptq.graph.passes.remove_noops import RemoveNoOps
from ptq.graph.passes.sort_nodes import SortNodes
from ptq.graph.passes.unflatten_softmax import UnflattenSoftmax
from ptq.graph.passes.upgrade_opset import UpgradeOpset

#: One round finds nearly everything; folded shape arithmetic can let shapes be inferred that
#: allow more. The bound is a guard, not a limit that a real model reaches.
_MOST_ROUNDS = 4


def normalize(model: ir.Model) -> list[str]:
    """Normalize in place, and return what was done, one line each: ``batchnorm: 49 folded``.

    Afterwards the model has opset 21 or newer, no functions and no Constant nodes in its main
    graph; nodes have names of their own and stand in topological order; inputs and outputs have
    the names and the order they had. Subgraphs are converted to the new opset and otherwise left
    as they are. A second run changes nothing.

    The float output is the same up to rounding: folding multiplies weights in float32, which
    moves outputs by a few parts in 1e6 of their largest value.

    Raises:
        UnsupportedError: an opset or a function that cannot be converted.
        ModelError: the graph has a cycle.
    """
    signature = check.Signature.of(model)
    done: Counter[Rewrite] = Counter()
    lift, names, infer = LiftConstants(), FixNames(), InferShapes()
    first: list[Rewrite] = [InlineFunctions(), SortNodes(), RemoveInitializerInputs()]
    # constants are lifted before the conversion, which then copies no weights, and after it,
    # for it writes Constant nodes
    first += [lift, UpgradeOpset(), lift, names]
    fold: list[Rewrite] = [FoldShapes(), FoldConstants(), RemoveNoOps(), UnflattenSoftmax()]
    fold += [
        MergeReshapes(),
        FoldBatchNorm(),
        FuseHardSwish(),
        FoldAffine(),
        FoldPad(),
        MergeDuplicates(),
    ]
    fold += [RemoveDead(), names]
    for rewrite in first:
        done[rewrite] += _run(rewrite, model)
    for _ in range(_MOST_ROUNDS):
        _run(infer, model)
        changes = {rewrite: _run(rewrite, model) for rewrite in fold}
        done.update(changes)
        if not any(changes.values()):
            break
    check.after_normalize(model, signature)
    return [rewrite.note(count) for rewrite, count in done.items() if count]


def _run(rewrite: Rewrite, model: ir.Model) -> int:
    outcome = rewrite(model)
    assert isinstance(outcome, Outcome)
    return outcome.count
