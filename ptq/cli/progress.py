"""Draw progress on stderr; silent when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ptq.progress import OnProgress, Progress, ignore


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
        bar.update(progress.done - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
