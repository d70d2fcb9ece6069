"""Character error rate of recognized text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.data.labels import Labels
from ptq.errors import ConfigError, DataError
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.outputs import only, pair


class CharacterErrorRate(Metric, frozen=True, tag="cer"):
    """Edits that turn the recognized texts into the right ones, over the length of the right ones.

    A text is read from the scores (N, T, characters) of a CTC model, greedily: the best class at
    each step, repeats collapsed, blanks dropped. The right texts are the labels, or without labels
    what the float model reads. An edit inserts, deletes or replaces a character. Edits and lengths
    are added over all lines before they are divided; a line is a unit.

    Attributes:
        alphabet: a file with a character on each line, in the order of the classes; the blank is
            left out, or there. Needed with labels.
        space: whether the last class is a space that the file does not have.
        ignore_space: whether spaces count for nothing.
        blank: the class of the blank.
        time_first: whether the scores are (T, N, characters).
        output: the output with the scores, if there are several.
    """

    higher_is_better = False
    labels = "optional"
    label_kind = "texts"
    empty = "all texts are empty"
    paper: ClassVar[str] = (
        "Graves et al., Connectionist Temporal Classification: Labelling Unsegmented Sequence "
        "Data with Recurrent Neural Networks, ICML 2006, section 3.2 (best path)"
    )

    alphabet: str = ""
    space: bool = False
    ignore_space: bool = False
    blank: Annotated[int, Meta(ge=0)] = 0
    time_first: bool = False
    output: str = ""

    @property
    def title(self) -> str:
        """``character error rate``."""
        return "character error rate"

    def answers(self, reference: Outputs) -> int:
        """Return the number of lines."""
        if not self.alphabet:
            raise ConfigError(
                "the character error rate against texts needs the characters of the classes; "
                "give cer:alphabet=FILE, with one on each line"
            )
        return len(self._lines(reference[only(reference, self.output, "text")]))

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(edits, length)`` of each line."""
        a, b = (self._texts(v) for v in pair(got, reference, self._name(reference)))
        wanted = b if labels is None else [self._kept(list(str(text))) for text in labels]
        fields = [(edit_distance(x, y), len(y)) for x, y in zip(a, wanted, strict=True)]
        return np.array(fields, np.float64).reshape(-1, 2)

    def _name(self, outputs: Outputs) -> str:
        return only(outputs, self.output, "text")

    def _lines(self, scores: np.ndarray) -> np.ndarray:
        """Return scores as (N, T, characters)."""
        if scores.ndim != 3 or not self.blank < scores.shape[-1]:
            raise DataError(
                f"the scores have shape {scores.shape}; text is read from (N, T, characters), "
                f"of which {self.blank} is the blank"
            )
        return scores.swapaxes(0, 1) if self.time_first else scores

    def _texts(self, scores: np.ndarray) -> list[Sequence[Hashable]]:
        """Return each line as its characters, or as classes if there is no alphabet."""
        lines = best_path(self._lines(scores), self.blank)
        if not self.alphabet:
            return [line.tolist() for line in lines]
        table = self._table(scores.shape[-1])
        return [self._kept([c for i in line for c in table[i]]) for line in lines]

    def _kept(self, characters: list[str]) -> list[str]:
        return [c for c in characters if not (self.ignore_space and c.isspace())]

    def _table(self, classes: int) -> list[str]:
        """Return the character of each class."""
        path = Path(self.alphabet)
        try:
            table = list(_characters(path, path.stat().st_mtime_ns))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"cannot read the alphabet '{path}': {reason}") from error
        known = len(table)
        if self.space:
            table.append(" ")
        if len(table) == classes - 1:
            table.insert(self.blank, "")
        if len(table) != classes:
            space = " and a space" if self.space else ""
            remedy = "" if self.space else ", or space=true if the last class is a space"
            raise ConfigError(
                f"the alphabet '{path}' has {known} characters{space}, the model {classes} "
                f"classes, one of them the blank; give one line for each class{remedy}"
            )
        return table

    def figure(self, sums: Sums) -> Sums:
        """Return edits over characters, which may be above 1."""
        return ratio(sums[..., 0], sums[..., 1])


@lru_cache(maxsize=8)
def _characters(path: Path, changed: int) -> tuple[str, ...]:
    """Return the lines of the file; ``changed`` is when it was, so that it is read anew."""
    # not splitlines(), which takes some characters for ends of lines
    lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def best_path(scores: np.ndarray, blank: int) -> list[np.ndarray]:
    """Return the classes of each line: the best at each step, without repeats and blanks.

    Args:
        scores: ``(N, T, classes)``; of equal scores the first counts as better.
        blank: the class that separates characters.
    """
    best = scores.argmax(axis=-1)
    new = np.ones(best.shape, bool)
    new[:, 1:] = best[:, 1:] != best[:, :-1]
    return [line[keep] for line, keep in zip(best, new & (best != blank), strict=True)]


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the least number of insertions, deletions and replacements between two sequences.

    Costs O(len(a)) operations on vectors of len(b).

    Reference: Wagner and Fischer, "The String-to-String Correction Problem", JACM 21, 1974.
    """
    known = {c: i for i, c in enumerate(dict.fromkeys([*a, *b]))}
    x, y = (np.array([known[c] for c in text], np.int64) for text in (a, b))
    steps = np.arange(len(y) + 1)
    row = steps
    for i, c in enumerate(x, start=1):
        best = np.concatenate([[i], np.minimum(row[1:] + 1, row[:-1] + (y != c))])
        # insertions: the least of best[k] + (j - k) over all k up to j
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])
