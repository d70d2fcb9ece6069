"""What the metrics of language models share: how likely each next token is, teacher-forced."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from ptq.data.feeds import Feed
from ptq.data.labels import Labels
from ptq.errors import ConfigError, DataError
from ptq.metrics.base import Metric, Outputs, Sums
from ptq.metrics.outputs import only, pair

#: A token that is not judged, as trainers mark it (the `ignore_index` of PyTorch).
IGNORED = -100

#: Logits that are held in float64 at once: 32 MB.
_CHUNK = 1 << 22

#: The mask of what Transformers exports; that there is none is no error.
_USUAL_MASK = "attention_mask"

_NO_MASK = "none"


class NextTokens(Metric, frozen=True):
    """A figure of the likelihood of each token, given all those before it.

    Logits ``(batch, sequence, vocabulary)`` at position ``t`` are held against the token at
    ``t + 1``. The tokens are those that the model is fed, or labels: token numbers for every
    position, negative where nothing is judged. A sequence is a unit, of fields
    ``(negative log-likelihood in nats, tokens)``.

    Attributes:
        output: the output with the logits, if there are several.
        tokens: the input with the tokens: ``input_ids``, or the only one of integers with two axes.
        mask: the input that is 0 where a token counts for nothing: it is neither predicted nor
            predicted from. There need be none of the default name; ``none`` takes none.
    """

    unit = "number"
    higher_is_better = False
    labels = "optional"
    label_kind = "classes"
    empty = "no token that counts comes after another"

    output: str = ""
    tokens: str = ""
    mask: str = _USUAL_MASK

    @property
    def basis(self) -> Hashable:
        """The options: all these metrics are figures of the same sums."""
        return NextTokens, self.output, self.tokens, self.mask

    def answers(self, reference: Outputs) -> int:
        """Return the number of positions of all sequences."""
        return int(np.prod(reference[self._logits(reference)].shape[:2]))

    def truth(self, feed: Feed, reference: Outputs, labels: Labels | None) -> Labels:
        """Return the tokens of all positions, `IGNORED` where they count for nothing."""
        batch, length, _ = reference[self._logits(reference)].shape
        given = self._tokens(feed) if labels is None else np.asarray(labels).reshape(batch, length)
        if given.shape != (batch, length):
            raise DataError(
                f"tokens of shape {given.shape} belong to logits of shape "
                f"{(*given.shape, 'vocabulary')}, and the model gives {(batch, length)} positions; "
                "name the input of the tokens, as in perplexity:tokens=input_ids"
            )
        ids = given.astype(np.int64)
        kept = self._kept(feed, batch, length)
        if kept is not None:
            ids[~kept] = IGNORED
            # what a position that does not count predicts does not count either
            ids[:, 1:][~kept[:, :-1]] = IGNORED
        return ids.reshape(-1)

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(negative log-likelihood, tokens)`` of each sequence."""
        logits, _ = pair(got, reference, self._logits(reference))
        if labels is None:
            raise DataError(f"the {self.title} needs the tokens of each sequence")
        batch, length, vocabulary = logits.shape
        ids = np.asarray(labels, np.int64).reshape(batch, length)
        if ids.max(initial=-1) >= vocabulary:
            raise DataError(
                f"token {ids.max()} is none of the model's {vocabulary}, which count from 0"
            )
        sums = np.zeros((batch, 2))
        for sequence, (scores, known) in enumerate(zip(logits, ids, strict=True)):
            judged = np.flatnonzero(known[1:] >= 0)
            lost = token_losses(scores, judged, known[1:][judged])
            sums[sequence] = lost.sum(), len(judged)
        return sums

    def _logits(self, outputs: Outputs) -> str:
        """Return the output of the logits."""
        name = only(outputs, self.output, "logits")
        if outputs[name].ndim != 3:
            raise DataError(
                f"output '{name}' has shape {outputs[name].shape}; likelihoods of tokens need "
                "logits (batch, sequence, vocabulary); name their output with output="
            )
        return name

    def _tokens(self, feed: Feed) -> np.ndarray:
        """Return the tokens of a feed."""
        if self.tokens:
            return _input(feed, self.tokens, "tokens")
        if "input_ids" in feed:
            return feed["input_ids"]
        found = [n for n, v in feed.items() if v.dtype.kind in "iu" and v.ndim == 2]
        found = [name for name in found if name != self.mask]
        if len(found) != 1:
            raise ConfigError(
                "no input, or more than one, looks like tokens (batch, sequence); name it with "
                f"tokens=: {', '.join(feed)}"
            )
        return feed[found[0]]

    def _kept(self, feed: Feed, batch: int, length: int) -> npt.NDArray[np.bool_] | None:
        """Return which positions count; ``None`` for all."""
        if self.mask == _NO_MASK or (self.mask == _USUAL_MASK and self.mask not in feed):
            return None
        mask = _input(feed, self.mask, "mask")
        # a model with a past is told of the past's tokens as well, which come first
        if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] < length:
            raise DataError(
                f"input '{self.mask}' has shape {mask.shape}; a mask of tokens is (batch, "
                "sequence); with mask=none, all tokens count"
            )
        return np.asarray(mask[:, mask.shape[1] - length :] != 0)


def token_losses(
    logits: np.ndarray, positions: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]
) -> Sums:
    """Return ``-log softmax(logits[positions])[tokens]`` in nats, each in float64.

    Logits may be of any size: the largest of a position is taken off first. One of minus infinity
    rules its token out, whose loss is then infinite.

    Args:
        logits: shape ``(sequence, vocabulary)``.
        positions: where a token is predicted.
        tokens: the right one of each.

    Raises:
        DataError: a position has a logit of plus infinity, or none that is finite.
    """
    found = np.zeros(len(positions))
    step = max(1, _CHUNK // max(logits.shape[1], 1))
    for start in range(0, len(positions), step):
        part = slice(start, start + step)
        rows = logits[positions[part]].astype(np.float64)
        largest = rows.max(axis=1, keepdims=True)
        if not np.isfinite(largest).all():
            raise DataError("a position has an infinite logit, or none that is finite")
        rows -= largest
        right = np.take_along_axis(rows, tokens[part, np.newaxis], axis=1)[:, 0]
        found[part] = np.log(np.exp(rows, out=rows).sum(axis=1)) - right
    return found


def _input(feed: Feed, name: str, what: str) -> np.ndarray:
    """Return an input of two axes that an option names."""
    if name not in feed:
        raise ConfigError(
            f"the model has no input '{name}' with {what}; choose one of: {', '.join(feed)}"
        )
    return feed[name]
