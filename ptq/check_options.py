"""What `ptq check` is asked for: thresholds, data, and where reports go."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ptq.data import Dataset, ImageOptions
from ptq.errors import ConfigError
from ptq.evaluate.thresholds import Drop, Noise, Thresholds, number, ratio, share
from ptq.graph.load import model_files
from ptq.places import require_free
from ptq.progress import OnProgress, ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to hold, and how to measure it.

    A share or a ratio may be given as a number or as a text such as ``99%``.

    Attributes:
        labels: file of right answers, classes or texts.
        metrics: task metrics, as ``topk:k=5`` or ``package.module:function``; chosen from labels
            and outputs if empty.
        max_drop: how much worse than the float model the task figures may be; see `Drop`.
        min_sqnr: in dB, over all outputs.
        min_cosine: over all outputs.
        min_agreement: share of equal top classes.
        max_size_ratio: quantized size over float size.
        min_speedup: float time over quantized time.
        min_integer: share of the layers that run as integer kernels.
        samples: how many samples to use; ``None`` for all.
        baseline: figures of an earlier run, which may not get worse.
        update_baseline: whether to write this run's figures there, unless a threshold is missed.
        name: what the model is called there; its file name if empty.
        noise: ``fail`` counts figures as measured, ``pass`` fails what is certain only.
        confidence: of the intervals, in 0..1.
        speed: whether to measure speed even without ``min_speedup``.
        seconds: how long to time.
        threads: threads to run the samples with; speed is measured with one.
        images: how to prepare images.
        image_arguments: the same as arguments of a command line, for commands that are proposed.
        junit: where to write JUnit XML.
        report: where to write JSON.
        markdown: where to write a table in Markdown.
        on_progress: told of every step.
    """

    labels: Path | None = None
    metrics: tuple[str, ...] = ()
    max_drop: str | float | None = None
    min_sqnr: float | None = None
    min_cosine: float | None = None
    min_agreement: str | float | None = None
    max_size_ratio: str | float | None = None
    min_speedup: float | None = None
    min_integer: str | float | None = None
    samples: int | None = None
    baseline: Path | None = None
    update_baseline: bool = False
    name: str = ""
    noise: Noise = "fail"
    confidence: str | float = 0.95
    speed: bool = False
    seconds: float = 5.0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    images: ImageOptions | None = None
    image_arguments: tuple[str, ...] = ()
    junit: Path | None = None
    report: Path | None = None
    markdown: Path | None = None
    on_progress: OnProgress = ignore

    def thresholds(self) -> Thresholds:
        """Return the limits.

        Raises:
            ConfigError: one of them is no number, or out of its range.
        """
        drop, agreement, integer = self.max_drop, self.min_agreement, self.min_integer
        size, speedup, cosine = self.max_size_ratio, self.min_speedup, self.min_cosine
        return Thresholds(
            max_drop=None if drop is None else Drop.parse(drop),
            min_sqnr=None if self.min_sqnr is None else number(self.min_sqnr, "--min-sqnr"),
            min_cosine=None if cosine is None else number(cosine, "--min-cosine"),
            min_agreement=None if agreement is None else share(agreement, "--min-agreement"),
            max_size_ratio=None if size is None else ratio(size, "--max-size-ratio"),
            min_speedup=None if speedup is None else ratio(speedup, "--min-speedup"),
            min_integer=None if integer is None else share(integer, "--min-integer"),
        )

    def level(self) -> float:
        """Return the confidence of the intervals.

        Raises:
            ConfigError: it is not between 0 and 1.
        """
        level = share(self.confidence, "--confidence")
        if not 0 < level < 1:
            raise ConfigError(f"--confidence {self.confidence} is no confidence; write 95%")
        return level

    def outputs(self) -> dict[str, Path]:
        """Return the files to write, by the option that names them."""
        given = {"--junit": self.junit, "--json": self.report, "--markdown": self.markdown}
        if self.update_baseline:
            given["--baseline"] = self.baseline
        return {option: path for option, path in given.items() if path is not None}


def require_something(thresholds: Thresholds, options: CheckOptions) -> None:
    """Refuse to check nothing.

    Raises:
        ConfigError: there is no threshold and no baseline.
    """
    if options.update_baseline and options.baseline is None:
        raise ConfigError("--update-baseline needs a file to write; give --baseline as well")
    if not thresholds and options.baseline is None:
        raise ConfigError(
            "there is nothing to hold; give a threshold (--max-drop, --min-sqnr, --min-cosine, "
            "--min-agreement, --max-size-ratio, --min-speedup, --min-integer) or --baseline"
        )


def require_places(
    reference: Path, quantized: Path, data: str | Dataset, options: CheckOptions
) -> None:
    """Refuse to write over anything that is read.

    Raises:
        ConfigError: an output is a model, data or a folder, or two are one file.
    """
    outputs = options.outputs()
    read = [*model_files(reference), *model_files(quantized), options.labels]
    source = data.source if isinstance(data, Dataset) else data
    if options.baseline is not None and not options.update_baseline:
        read.append(options.baseline)
    for option, path in outputs.items():
        if any(p is not None and p.exists() and _is_same(path, p) for p in read):
            raise ConfigError(f"'{path}' is read by this run; choose another name with {option}")
    if len({path.absolute() for path in outputs.values()}) < len(outputs):
        raise ConfigError(f"{' and '.join(outputs)} are to be one file; give two names")
    # files of an earlier run are replaced: a CI job writes the same ones every time
    require_free(list(outputs.values()), reference, [source, *read], force=True)


def _is_same(output: Path, path: Path) -> bool:
    return output.exists() and output.samefile(path)
