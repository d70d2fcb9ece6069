"""What tuning found as a page to look at, and as Markdown: the front as a chart, and the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ptq.errors import ConfigError
from ptq.report.markdown import plain
from ptq.report.names import visible
from ptq.report.scatter import Kind, Mark, scatter
from ptq.report.tuning import TunedPoint, Tuning, not_measured, tuning_notes, tuning_rows

Renderer = Callable[[Tuning], str]


def tuning_renderer(path: Path) -> Renderer:
    """Return what writes a tuning in the form that the name of a file asks for.

    Raises:
        ConfigError: it asks for none that there is.
    """
    renderers: dict[str, Renderer] = {
        ".html": tuning_page,
        ".htm": tuning_page,
        ".md": tuning_markdown,
    }
    try:
        return renderers[path.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"a report is a page or Markdown; give '{path}' the suffix .html or .md"
        ) from None


def tuning_page(found: Tuning) -> str:
    """Return one HTML file that loads nothing: the chart, the table, and the recipes."""
    head, *rows = tuning_rows(found)
    measured = [p for p in found.points if p.measured]
    return _template().render(
        model=PurePath(found.model).name,
        verdict=found.verdict,
        chart=front_chart(found),
        head=head,
        rows=list(zip(rows, measured, strict=True)),
        left_out=not_measured(found),
        notes=[*tuning_notes(found)],
        notices=found.notices,
        css=Markup(_asset("page.css")),
    )  # fmt: skip


def tuning_markdown(found: Tuning) -> str:
    """Return Markdown for a pull request: the verdict, the table, what it rests on."""
    head, *rows = tuning_rows(found)
    table = [
        " | ".join(map(plain, head)),
        " | ".join("---" for _ in head),
        *(" | ".join(map(plain, row)) for row in rows),
    ]
    return (
        "\n\n".join(
            [
                f"### {plain(PurePath(found.model).name)}: {plain(found.verdict)}",
                "\n".join(f"| {line} |" for line in table),
                "\n".join(f"- {plain(note)}" for note in (*tuning_notes(found), *found.notices)),
            ]
        )
        + "\n"
    )


def front_chart(found: Tuning) -> Markup:
    """Draw the drop on the samples to report on over the speed; a larger mark is a larger file."""
    return scatter([*_marks(found)], across="times as fast as float", up="drop of the task figure")


def _marks(found: Tuning) -> Iterator[Mark]:
    for number, point in enumerate(found.points):
        drop = _drop(found, point)
        if point.latency is None or drop is None:
            continue
        size = point.size_bytes / found.size_bytes
        kind: Kind = "chosen" if number == found.winner else "front" if point.front else "other"
        label = f"{point.label}: {size:.2f} of the size"
        yield Mark(point.latency.speedup, drop[0], drop[1], drop[2], size, label, kind)


def _drop(found: Tuning, point: TunedPoint) -> tuple[float, float, float] | None:
    """Return the first task figure's drop with its interval, shares in points."""
    for figure in point.reporting:
        if figure.name == found.tasks[0] and figure.drop is not None:
            scale = 100.0 if figure.unit == "share" else 1.0
            lo = figure.drop if figure.drop_lo is None else figure.drop_lo
            hi = figure.drop if figure.drop_hi is None else figure.drop_hi
            return scale * figure.drop, scale * lo, scale * hi
    return None


def _asset(name: str) -> str:
    return files("ptq.report").joinpath(name).read_text(encoding="utf-8").strip()


@cache
def _template() -> Template:
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters.update(shown=visible)
    return engine.from_string(_asset("tuning.html.j2"))
