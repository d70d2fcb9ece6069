"""What a metric is: numbers that add up over samples, and a figure of their sum.

Because they add up, a metric streams; and because they are kept for each unit, the uncertainty of
the figure, and of the difference between two models, follows by resampling the units.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ptq.data.feeds import Feed
from ptq.data.function import FUNCTION
from ptq.data.labels import Labels
from ptq.registry import Registry

#: What a model gave for one feed, by the name of the output.
Outputs: TypeAlias = Mapping[str, np.ndarray]

#: float64 numbers.
Sums: TypeAlias = npt.NDArray[np.float64]

#: How a figure reads: a share of a whole (0..1, printed in percent), decibels, or a plain number.
Unit: TypeAlias = Literal["share", "dB", "number"]


class Metric(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="metric", forbid_unknown_fields=True
):
    """A figure of merit; a subclass in a file of its own is found by its tag.

    Its fields are its options, the first line of its docstring is what `ptq methods` prints.

    Attributes:
        unit: how the figure reads.
        higher_is_better: whether a larger figure is better.
        labels: whether the right answers must, can or cannot be given; without them, outputs are
            held against the float model's.
        label_kind: what a right answer is.
        counts: whether a unit is so many right answers of so many (fields ``(right, answers)``).
            Where each unit is one answer, intervals are closed forms, which hold for small samples
            too.
        empty: what to say if there is nothing to judge, so that the figure is NaN.
        paper: where the figure comes from, if from a paper.
    """

    unit: ClassVar[Unit] = "share"
    higher_is_better: ClassVar[bool] = True
    labels: ClassVar[Literal["required", "optional", "none"]] = "none"
    label_kind: ClassVar[Literal["classes", "texts", "any"]] = "any"
    counts: ClassVar[bool] = False
    empty: ClassVar[str] = "the outputs hold no values"
    paper: ClassVar[str] = ""

    @property
    def title(self) -> str:
        """What the figure is called in a table, such as ``top-1 accuracy``."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What `parse_metric` reads back: the name, and the options that are not the default."""
        options = ",".join(
            f"{field.name}={_spelled(value)}"
            for field in msgspec.structs.fields(self)
            if (value := getattr(self, field.name)) != field.default
        )
        name = str(self.__struct_config__.tag)
        return f"{name}:{options}" if options else name

    @property
    def basis(self) -> Hashable:
        """What the sums depend on: metrics with the same basis are measured once for all."""
        return self

    def answers(self, reference: Outputs) -> int:
        """Return how many labels a feed takes, to which the float model gives these outputs.

        Raises:
            DataError: the outputs are not what the metric is for.
            ConfigError: an option names an output that is none.
        """
        return 0

    def truth(self, feed: Feed, reference: Outputs, labels: Labels | None) -> Labels | None:
        """Return the right answers of a feed: the labels, or what the inputs themselves say.

        Args:
            feed: the inputs of both models.
            reference: outputs of the float model.
            labels: labels of this feed; ``None`` if there are none.

        Raises:
            DataError: inputs, outputs and labels do not belong together.
            ConfigError: an option names an input or output that is none.
        """
        return labels

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return what one feed adds to the sums, float64 of shape ``(units, fields)``.

        A unit is what is drawn independently: a row of class scores, an image, a line of text.

        Args:
            got: outputs of the model that is judged: the float one too, for its own figure.
            reference: outputs of the float model on the same feed.
            labels: right answers of this feed, as `truth` has them, as many as `answers` says;
                ``None`` if there are none.

        Raises:
            DataError: the outputs or labels are not what the metric is for.
            VerificationError: the models' outputs cannot be compared.
            ConfigError: an option names an output that is none.
        """
        raise NotImplementedError

    def figure(self, sums: Sums) -> Sums:
        """Return the figure of summed fields: shape ``(..., fields)`` to ``(...)``.

        It is vectorised, for resampling sums up many times; no warnings, infinities where the
        formula has them (no noise at all), NaN where there is nothing to judge.
        """
        raise NotImplementedError


def ratio(parts: Sums, wholes: Sums) -> Sums:
    """Return ``parts / wholes``, NaN where the whole is 0."""
    nothing = np.full(np.broadcast_shapes(parts.shape, wholes.shape), np.nan)
    found: Sums = np.divide(parts, wholes, out=nothing, where=wholes != 0)
    return found


_REGISTRY = Registry("metric", "ptq.metrics", Metric)


def metrics() -> dict[str, type[Metric]]:
    """Return all metrics by name, those of other distributions included."""
    return _REGISTRY.methods()


def metric_names() -> list[str]:
    """Return the names of all metrics, in alphabetical order."""
    return list(metrics())


def parse_metric(text: str) -> Metric:
    """Return the metric of a text like ``topk:k=5``, or of ``package.module:function``.

    Raises:
        ConfigError: there is no such metric, option or function, or the value does not fit.
    """
    if FUNCTION.fullmatch(text) and text.partition(":")[0] not in metrics():
        from ptq.metrics.function import FunctionMetric

        return FunctionMetric.of(text)
    return _REGISTRY.parse(text)


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
