"""ALGORITHMS trap T1: a product with a dequantized weight is not what the file says."""

import numpy as np
import onnxruntime as ort
import pytest
from support.models import parse

from ptq.runtime.session import open_session

TEXT = """g (float[4, 128] x) => (float[4, 64] y)
    <int8[128, 64] w, float[64] s, int8[64] z> {
      v = DequantizeLinear <axis = 1> (w, s, z)
      y = MatMul (x, v)
    }"""


@pytest.fixture
def product():
    """Return a product with a weight of 8 bits, what goes in, and what ought to come out."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (128, 64), dtype=np.int8)
    scale = rng.uniform(0.01, 0.02, 64).astype(np.float32)
    model = parse(TEXT, {"w": codes, "s": scale, "z": np.zeros(64, np.int8)})
    x = rng.standard_normal((4, 128), np.float32)
    return model.SerializeToString(), {"x": x}, x @ (codes * scale)


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_onnxruntime_rounds_what_is_multiplied_unless_it_is_told_not_to(product):
    # Were this to fail, weight-only models would be what their files say, with every runtime.
    model, feed, wanted = product
    [by_default] = open_session(model).run(None, feed)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    [exact] = ort.InferenceSession(model, options).run(None, feed)
    [as_written] = open_session(model, optimization="disabled").run(None, feed)
    for found in (exact, as_written):
        assert error(found, wanted) < 1e-6
    # activations get 127 steps for each side: a few in a thousand
    assert 1e-3 < error(by_default, wanted) < 2e-2
