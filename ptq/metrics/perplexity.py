"""Perplexity of a language model on a text."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.metrics.base import Sums, ratio
from ptq.metrics.next_tokens import NextTokens


class Perplexity(NextTokens, frozen=True, tag="perplexity"):
    """Among how many equally likely tokens the next one is as hard to tell; teacher-forced.

    It is the exponential of the mean negative log-likelihood over the tokens of all sequences.

    Attributes:
        output: the output with the logits (batch, sequence, vocabulary), if there are several.
        tokens: the input with the tokens; found if there is an ``input_ids``, or only one.
        mask: the input that is 0 where tokens do not count; ``none`` for none.
    """

    paper: ClassVar[str] = (
        "Jelinek et al., Perplexity - a Measure of the Difficulty of Speech Recognition Tasks, "
        "Journal of the Acoustical Society of America 62, 1977"
    )

    @property
    def title(self) -> str:
        """``perplexity``."""
        return "perplexity"

    def figure(self, sums: Sums) -> Sums:
        """Return the exponential of the mean; infinite where a right token was ruled out."""
        with np.errstate(over="ignore"):
            found: Sums = np.exp(ratio(sums[..., 0], sums[..., 1]))
        return found
