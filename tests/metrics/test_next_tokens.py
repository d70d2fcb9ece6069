"""Likelihoods of tokens: against scipy position by position, and by the command."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from support.cli import ptq
from support.models import parse, write

from ptq.errors import ConfigError, DataError, VerificationError
from ptq.evaluate.score import score
from ptq.metrics import next_tokens, parse_metric
from ptq.runtime.session import open_session, run


def by_hand(logits, ids, mask=None):
    """Return ``(nats, tokens)`` of each sequence, one position after the other."""
    found = []
    for scores, tokens, kept in zip(
        logits, ids, np.ones_like(ids) if mask is None else mask, strict=True
    ):
        terms = [
            -log_softmax(scores[t].astype(np.float64))[tokens[t + 1]]
            for t in range(len(tokens) - 1)
            if kept[t] and kept[t + 1]
        ]
        found.append([sum(terms), len(terms)])
    return np.array(found)


def sums(text, logits, feed, labels=None):
    metric = parse_metric(text)
    outputs = {"logits": logits}
    truth = metric.truth(feed, outputs, labels)
    assert truth.shape == (metric.answers(outputs),)
    return metric.measure(outputs, outputs, truth)


@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(2, 9)),
    size=st.sampled_from([1.0, 1e3, 1e30]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_sums_are_those_of_log_softmax(seed, shape, size, dtype):
    rng = np.random.default_rng(seed)
    logits = (size * rng.normal(size=shape)).astype(dtype)
    ids = rng.integers(0, shape[2], shape[:2])
    mask = rng.integers(0, 2, shape[:2])
    feed = {"input_ids": ids, "attention_mask": mask}
    # both are float64 sums of a few terms
    np.testing.assert_allclose(sums("nll", logits, feed), by_hand(logits, ids, mask), rtol=1e-12)
    np.testing.assert_allclose(
        sums("nll:mask=none", logits, feed), by_hand(logits, ids), rtol=1e-12
    )


def test_sums_do_not_depend_on_how_many_logits_are_held_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(size=(2, 50, 7)), rng.integers(0, 7, (2, 50))
    whole = sums("nll", logits, {"input_ids": ids})
    monkeypatch.setattr(next_tokens, "_CHUNK", 21)
    np.testing.assert_allclose(sums("nll", logits, {"input_ids": ids}), whole, rtol=1e-14)


def test_equal_logits_have_the_perplexity_of_the_vocabulary():
    found = sums("perplexity", np.zeros((2, 5, 11), np.float32), {"x": np.ones((2, 5), np.int32)})
    assert parse_metric("perplexity").figure(found.sum(axis=0)) == pytest.approx(11, rel=1e-14)
    assert parse_metric("nll").figure(found.sum(axis=0)) == pytest.approx(math.log(11), rel=1e-14)


def test_labels_take_the_place_of_the_tokens_and_negative_ones_are_not_judged():
    rng = np.random.default_rng(1)
    logits, ids = rng.normal(size=(2, 5, 7)), rng.integers(0, 7, (2, 5))
    labels = ids.copy()
    labels[:, :3] = -100  # a prompt, of which only the answer is judged
    found = sums("nll", logits, {"input_ids": np.zeros((2, 5), np.int64)}, labels.reshape(-1))
    np.testing.assert_allclose(found, by_hand(logits[:, 2:], ids[:, 2:]), rtol=1e-12)


def test_padding_on_the_left_predicts_nothing():
    logits, ids = np.random.default_rng(2).normal(size=(1, 5, 7)), np.array([[0, 0, 3, 1, 2]])
    mask = np.array([[0, 0, 1, 1, 1]])
    found = sums("nll", logits, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(found, by_hand(logits[:, 2:], ids[:, 2:]), rtol=1e-12)


def test_a_mask_that_tells_of_a_past_ends_with_the_tokens():
    logits, ids = np.random.default_rng(3).normal(size=(1, 3, 7)), np.array([[3, 1, 2]])
    feed = {"input_ids": ids, "attention_mask": np.array([[1, 0, 0, 1, 1, 1]])}
    np.testing.assert_allclose(sums("nll", logits, feed), by_hand(logits, ids), rtol=1e-12)


def test_a_ruled_out_token_is_infinitely_surprising():
    logits = np.zeros((1, 3, 4), np.float32)
    logits[..., 3] = -np.inf
    fine = sums("nll", logits, {"input_ids": np.array([[0, 1, 2]])})
    np.testing.assert_allclose(fine, [[2 * math.log(3), 2]], rtol=1e-14)
    ruled_out = sums("perplexity", logits, {"input_ids": np.array([[0, 3, 2]])})
    assert parse_metric("perplexity").figure(ruled_out.sum(axis=0)) == np.inf
    logits[0, 1] = -np.inf
    with pytest.raises(DataError, match="none that is finite"):
        sums("nll", logits, {"input_ids": np.array([[0, 1, 2]])})


LOGITS, IDS = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("text", "feed", "error", "message"),
    [
        ("nll", {"x": IDS.astype("f4")}, ConfigError, "looks like tokens .* with tokens=: x"),
        ("nll", {"a": IDS, "b": IDS}, ConfigError, "more than one, looks like tokens"),
        ("nll:tokens=z", {"a": IDS}, ConfigError, "no input 'z' with tokens; choose one of: a"),
        ("nll:mask=z", {"a": IDS}, ConfigError, "no input 'z' with mask; choose one of: a"),
        ("nll", {"a": IDS[:, :2]}, DataError, r"tokens of shape \(2, 2\) belong to .* \(2, 3\)"),
        ("nll", {"a": IDS + 4}, DataError, "token 4 is none of the model's 4"),
        ("nll", {"a": IDS, "attention_mask": IDS[:, :2]}, DataError, "with mask=none, all"),
        ("nll:output=z", {"a": IDS}, ConfigError, "no output 'z'"),
    ],
)
def test_what_does_not_fit_is_an_error_with_a_remedy(text, feed, error, message):
    with pytest.raises(error, match=message):
        sums(text, LOGITS, feed)


def test_outputs_that_are_no_logits_are_errors():
    with pytest.raises(DataError, match=r"shape \(2, 4\); likelihoods .* need logits"):
        sums("nll", LOGITS[:, 0], {"a": IDS})
    metric = parse_metric("nll")
    with pytest.raises(VerificationError, match="the float model gives"):
        metric.measure({"y": LOGITS[:1]}, {"y": LOGITS}, IDS.reshape(-1))


# -- models -----------------------------------------------------------------------------------

#: A decoder of one layer: each position sees the sum of what came before it.
DECODER = """
decoder (int64[N, T] input_ids, int64[N, T] attention_mask) => (float[N, T, 13] logits)
<float[13, 32] embedding, float[32, 64] w1, float[64, 13] w2, int64 axis = {1}>
{
    e = Gather (embedding, input_ids)
    past = CumSum (e, axis)
    h = MatMul (past, w1)
    r = Relu (h)
    logits = MatMul (r, w2)
}
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder, one with 2-bit weights, and texts that the first one finds likely."""
    folder = tmp_path_factory.mktemp("decoder")
    rng = np.random.default_rng(4)
    weights = {
        name: (0.2 * rng.normal(size=shape)).astype(np.float32)
        for name, shape in {"w1": (32, 64), "w2": (64, 13)}.items()
    }
    path = write(folder / "model.onnx", parse(DECODER, weights))
    ids = np.zeros((12, 9), np.int64)
    mask = (np.arange(9) < rng.integers(5, 10, (12, 1))).astype(np.int64)
    session, feed = open_session(path), {"input_ids": ids, "attention_mask": mask}
    for t in range(8):
        [logits] = run(session, feed, ["logits"], where="a test")
        ids[:, t + 1] = (logits[:, t] + rng.gumbel(size=(12, 13))).argmax(axis=1)
    np.savez(folder / "eval.npz", **feed)
    options = ("--scheme", "weight-only", "--bits", 2, "--block", 16, "--allow-larger")
    made = ptq("quantize", path, *options, "-o", folder / "q.onnx")
    assert made.code == 0, made.err
    return folder, feed


def test_the_command_holds_the_perplexity(decoder):
    folder, feed = decoder
    given = (folder / "model.onnx", folder / "q.onnx", "--data", folder / "eval.npz")
    metrics = ("--metric", "perplexity", "--metric", "nll")
    held = ("--max-drop", "0.01%", "--json", folder / "check.json")
    assert ptq("check", *given, *metrics, *held).code == 3
    found = json.loads((folder / "check.json").read_bytes())
    figures = {figure["name"]: figure for figure in found["figures"]}
    for name, file in (("reference", "model.onnx"), ("value", "q.onnx")):
        [logits] = run(open_session(folder / file), feed, ["logits"], where="a test")
        nats, tokens = by_hand(logits, feed["input_ids"], feed["attention_mask"]).sum(axis=0)
        assert figures["nll"][name] == pytest.approx(nats / tokens, rel=1e-6)
        assert figures["perplexity"][name] == pytest.approx(np.exp(nats / tokens), rel=1e-5)
    drop = figures["perplexity"]["value"] - figures["perplexity"]["reference"]
    assert figures["perplexity"]["drop"] == pytest.approx(drop)
    assert figures["perplexity"]["units"] == 12
    assert figures["perplexity"]["drop_lo"] < drop < figures["perplexity"]["drop_hi"]
    assert ptq("check", *given, "--metric", "perplexity", "--max-drop", "50%").code == 0


def test_the_score_says_that_the_inputs_tell_what_is_right(decoder):
    folder, feed = decoder
    sessions = [open_session(folder / name) for name in ("model.onnx", "q.onnx")]
    labels = feed["input_ids"].reshape(-1)
    [own] = score(*sessions, [feed], [parse_metric("nll")])
    [told] = score(*sessions, [feed], [parse_metric("nll")], labels=labels)
    assert (own.against, told.against) == ("inputs", "labels")
    assert own.quantized == told.quantized
