"""How a run goes, as opposed to what it computes: places, data, threads, progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ptq.data import Dataset, ImageOptions
from ptq.embedded import PinnedPlacement
from ptq.errors import ConfigError
from ptq.progress import OnProgress, ignore

#: How long to time unless told otherwise.
SECONDS = 2.0

OnSlower = Literal["write", "keep-float", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthBudget:
    """What weights may take where each layer has a width of its own; just one of the three.

    Attributes:
        size_bytes: the largest file.
        mean_bits: the most bits that a weight has on average.
        sqnr_db: the least SQNR of the output, with as small a file as has it.
    """

    size_bytes: int | None = None
    mean_bits: float | None = None
    sqnr_db: float | None = None

    def __post_init__(self) -> None:
        """Refuse none, and several."""
        given = (self.size_bytes, self.mean_bits, self.sqnr_db)
        if sum(value is not None for value in given) != 1:
            raise ConfigError(
                "--bits mixed needs just one of --max-size, --mean-bits and --min-sqnr"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options that do not change which model comes out.

    Attributes:
        output: where to write; by default ``MODEL.int8.onnx`` beside the input.
        report: where to write the report as JSON.
        page: where to write the report as a page, ``.html``, or as Markdown, ``.md``; layers are
            then compared and timed one by one.
        force: whether existing files may be replaced.
        statistics: a statistics file of `ptq.calibrate`, in place of observing.
        trained: a training job of this model that was trained, in place of training here.
        samples: how many calibration samples to use; ``None`` for all.
        evaluation: held-out data to measure accuracy on, in any form that calibration data has,
            or a data set that is open.
        labels: a file with the right class of every evaluation row.
        images: how to prepare images.
        threads: how many threads to observe and to measure accuracy with.
        seconds: about how long to time the result beside the float model; placing takes as long
            again for a profile, and half of it for each candidate.
        min_speedup: the least ratio of float time to integer time to put up with.
        on_slower: what to do with a result that is slower than the float model: write it and say
            so, write the float model in its place, or fail. By default the float model is kept
            where costs decide the placement, and what was asked for is written where the user did.
        placement: what an earlier run decided by measuring, as `ptq.read_recipe` returns it: it is
            written as it is, and nothing is measured to place.
        widths: what the weights of the static scheme may take, each layer with a width that
            measuring chooses; the model then has them as overrides. ``None``: as the settings say.
        on_progress: told of every step.
    """

    output: Path | None = None
    report: Path | None = None
    page: Path | None = None
    force: bool = False
    statistics: Path | None = None
    trained: Path | None = None
    samples: int | None = None
    evaluation: str | Dataset | None = None
    labels: Path | None = None
    images: ImageOptions | None = None
    threads: int = 1
    seconds: float = field(default_factory=lambda: SECONDS)
    min_speedup: float | None = None
    on_slower: OnSlower | None = None
    placement: PinnedPlacement | None = None
    widths: WidthBudget | None = None
    on_progress: OnProgress = ignore

    def __post_init__(self) -> None:
        """Take names of files as text too."""
        for name in ("output", "report", "page", "statistics", "labels"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, Path(given))
