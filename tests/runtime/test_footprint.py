"""Load time and memory, measured in a process of their own."""

import tempfile

import numpy as np
import pytest
from support.models import parse, write

from ptq.errors import VerificationError
from ptq.runtime.footprint import measure_footprint
from ptq.runtime.session import open_session
from ptq.runtime.signature import session_inputs

LENGTH = 20_000_000
HUGE = f"g (float[1] x) => (float[{LENGTH}] y) <int64[1] n> {{ t = Expand (x, n) y = Exp (t) }}"


def test_the_memory_a_model_needs_is_that_of_its_own_process(tmp_path):
    path = tmp_path / "huge.onnx"
    write(path, parse(HUGE, {"n": np.array([LENGTH])}))
    large = np.ones(50_000_000)  # 400 MB here, that are not the model's
    found = measure_footprint(path, {"x": np.ones(1, np.float32)})
    needed = found.peak_rss_bytes - found.bare_rss_bytes
    # at least one array of that size is in memory at once, hardly more than four
    assert LENGTH * 4 <= needed <= LENGTH * 4 * 5
    assert found.bare_rss_bytes < large.nbytes
    assert found.load_ms > 0


def test_the_process_gets_inputs_of_every_type_and_leaves_nothing(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('the folder is not on the path')")
    path = write(
        tmp_path / "m.onnx",
        """
        g (string[N] words, bool[1] b, float16[2] h, int64 i)
          => (string[N] w, bool[1] c, float16[2] g, int64 j)
        { w = Identity (words) c = Not (b) g = Identity (h) j = Neg (i) }
        """,
    )
    feed = {
        "words": np.array(["a", "longer"], object),
        "b": np.array([True]),
        "h": np.ones(2, np.float16),
        "i": np.array(3),
    }
    assert measure_footprint(path, feed, threads=2).peak_rss_bytes > 0
    assert not list(scratch.iterdir())


def test_a_model_that_fails_there_is_an_error_in_one_line(tmp_path):
    path = write(tmp_path / "m.onnx", "g (float[2] x) => (float[2] y) { y = Neg (x) }")
    with pytest.raises(VerificationError, match="does not run in a process of its own") as caught:
        measure_footprint(path, {"x": np.ones(3, np.float32)})
    assert "\n" not in str(caught.value)


def test_a_session_says_what_it_wants_to_be_fed():
    model = parse(
        "g (float[N,3] a, string[1] s, uint8[?] u, float[2] w) => (float[N,3] y) <float[2] w>"
        "{ y = Neg (a) }"
    )
    found = session_inputs(open_session(model.SerializeToString()))
    assert [(s.name, str(s.dtype), s.shape) for s in found] == [
        ("a", "float32", ("N", 3)),
        ("s", "object", (1,)),
        ("u", "uint8", (None,)),
    ]
