"""Negative log-likelihood of the next token."""

from __future__ import annotations

from typing import ClassVar

from ptq.metrics.base import Sums, ratio
from ptq.metrics.next_tokens import NextTokens


class NegativeLogLikelihood(NextTokens, frozen=True, tag="nll"):
    """Mean surprise of each next token given those before it, in nats: the logarithm of perplexity.

    Attributes:
        output: the output with the logits (batch, sequence, vocabulary), if there are several.
        tokens: the input with the tokens; found if there is an ``input_ids``, or only one.
        mask: the input that is 0 where tokens do not count; ``none`` for none.
    """

    paper: ClassVar[str] = "Shannon, Prediction and Entropy of Printed English, BSTJ 30, 1951"

    @property
    def title(self) -> str:
        """``negative log-likelihood``."""
        return "negative log-likelihood"

    def figure(self, sums: Sums) -> Sums:
        """Return nats for each token."""
        return ratio(sums[..., 0], sums[..., 1])
