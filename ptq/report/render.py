"""Which rendering of a report a file is to have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ptq.errors import ConfigError
from ptq.report.report import Report

Renderer = Callable[[Report], str]


def page_renderer(path: Path) -> Renderer:
    """Return what writes a report in the form that the name of a file asks for.

    Raises:
        ConfigError: it asks for none that there is.
    """
    from ptq.report.markdown import markdown_page
    from ptq.report.page import html_page

    renderers = {".html": html_page, ".htm": html_page, ".md": markdown_page}
    try:
        return renderers[path.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"a report is a page or Markdown; give '{path}' the suffix .html or .md"
        ) from None
