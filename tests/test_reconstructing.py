"""Reconstructing small networks: what takes part, and why the rest does not."""

import numpy as np
import pytest
from support.models import random_feed
from support.nets import ORDINARY, quantize

from ptq.graph.emit_qdq import emit_qdq
from ptq.reconstructing import Network, Reconstructor, layers_of
from ptq.train.block_graph import fake_activations
from ptq.train.reconstruct import Descent

SHARED = """
agraph (float[4, 6] x) => (float[4, 6] y) <float[6, 6] w, float[6, 6] v>
{ a = MatMul (x, w)  b = Relu (a)  c = MatMul (b, v)  d = Relu (c)  y = MatMul (d, w) }
"""

BLOCKED = """
agraph (float[4, 6] x) => (float[4, 6] y) <float[6, 6] w, float[6, 6] v, float k = {3.0}>
{ a = MatMul (x, w)  m = Mod <fmod = 1> (a, k)  c = Add (m, x)  y = MatMul (c, v) }
"""


def reconstruct(text, folder, how="brecq"):
    """Return what was found, and the weights as they were before."""
    made = quantize(text, settings=ORDINARY)

    def emit(done):
        model = made.source.clone()
        emitted = emit_qdq(
            model,
            made.settings.sites(model),
            made.plan,
            made.settings.quantize_weight,
            rounded=done,
        )
        return model, emitted.tensors

    network = Network(
        made.source,
        folder,
        layers_of(made.sites),
        fake_activations(made.sites, made.plan.tensors),
        emit,
    )
    feeds = [random_feed(made.source, seed=i) for i in range(4)]
    blocks = []
    found = Reconstructor(network, how, feeds, Descent(iterations=8)).run(lambda: blocks.append(1))
    return found, emit({})[1], len(blocks)


def test_a_weight_of_several_blocks_is_left_with_the_reason(tmp_path):
    found, _, blocks = reconstruct(SHARED, tmp_path)
    assert (list(found.weights), blocks) == (["v"], 3)
    assert set(found.left.values()) == {"layers elsewhere share its weight"}
    assert len(found.left) == 2


def test_a_block_that_cannot_be_differentiated_is_left_with_the_reason(tmp_path):
    found, _, _ = reconstruct(BLOCKED, tmp_path)
    assert list(found.weights) == ["v"]
    (reason,) = found.left.values()
    assert "Mod" in reason


@pytest.mark.parametrize("how", ["adaround", "qdrop"])
def test_codes_differ_by_one_at_most_from_the_nearest(how, tmp_path):
    found, before, _ = reconstruct(SHARED, tmp_path, how)
    steps = found.weights["v"].codes.astype(int) - before["v"].codes
    assert np.abs(steps).max() <= 1
