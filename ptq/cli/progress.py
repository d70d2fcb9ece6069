"""Draw progress on stderr; silent when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ptq.progress import OnProgress, Progress, ignore

if TYPE_CHECKING:
    from ptq.batching import BatchProgress
    from ptq.report.batch import BatchRow
    from ptq.tune_options import TuneProgress

#: What a shell reports for a process that Ctrl-C ended.
INTERRUPTED = 130

#: Elapsed time and what is at hand; how long is left cannot be told, for models differ.
_BATCH = "{n_fmt}/{total_fmt}|{bar:16}| {elapsed}{postfix}"

#: Longest name of a model in it, so that the stage is still seen.
_LABEL = 40


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Yield a callback that draws one bar for each stage with countable steps."""
    from tqdm import tqdm

    if sys.stderr is None:  # started without one, as by some daemons
        yield ignore
        return
    bars: dict[str, tqdm] = {}

    def show(progress: Progress) -> None:
        if progress.total is None:
            return
        bar = bars.get(progress.stage)
        if bar is None:
            for other in bars.values():
                other.close()
            bar = bars[progress.stage] = tqdm(
                total=progress.total, desc=progress.stage, file=sys.stderr, disable=None
            )
        if progress.text:
            bar.set_postfix_str(progress.text, refresh=False)
        bar.update(progress.done - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def batch_bar(
    total: int,
) -> Iterator[tuple[Callable[[BatchProgress], None], Callable[[BatchRow], None]]]:
    """Yield callbacks for a batch: one bar over its models, which names the one at hand.

    What the user should know of a model is written above the bar, or where there is no terminal in
    its place, once the model is done.
    """
    from tqdm import tqdm

    from ptq.report.names import shortened

    if sys.stderr is None:
        yield lambda _: None, lambda _: None
        return
    with tqdm(
        total=total, file=sys.stderr, disable=None, bar_format=_BATCH, miniters=0, leave=False
    ) as bar:

        def show(progress: BatchProgress) -> None:
            text = f"{shortened(progress.label, _LABEL)} {_stage_text(progress.stage)}".rstrip()
            bar.set_postfix_str(text, refresh=progress.stage is None)
            bar.update(progress.done - bar.n)

        def tell(row: BatchRow) -> None:
            for notice in row.notices:
                bar.write(f"note: {row.label}: {notice}", file=sys.stderr)

        yield show, tell


@contextmanager
def tune_bar() -> Iterator[Callable[[TuneProgress], None]]:
    """Yield a callback that draws one bar over what `ptq tune` tries, with what is at hand."""
    from tqdm import tqdm

    from ptq.report.names import shortened

    if sys.stderr is None:
        yield lambda _: None
        return
    bars: list[tqdm] = []

    def show(progress: TuneProgress) -> None:
        if not bars:
            bars.append(
                tqdm(
                    total=progress.total, file=sys.stderr, disable=None, bar_format=_BATCH,
                    miniters=0, leave=False,
                )
            )  # fmt: skip
        text = f"{shortened(progress.label, _LABEL)} {_stage_text(progress.stage)}".rstrip()
        bars[0].set_postfix_str(text, refresh=progress.stage is None)
        bars[0].update(progress.done - bars[0].n)

    try:
        yield show
    finally:
        for bar in bars:
            bar.close()


def _stage_text(stage: Progress | None) -> str:
    if stage is None:
        return ""
    return stage.stage if stage.total is None else f"{stage.stage} {stage.done}/{stage.total}"
