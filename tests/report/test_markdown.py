"""The report as Markdown."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import HOSTILE, made_report

from ptq.report.markdown import code, markdown_page, plain
from ptq.report.names import shortened, visible

markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")

RENDER = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True})


def rendered(text):
    """Return what a reader of the Markdown sees, and the tokens that make it up."""
    tokens = RENDER.parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    return "".join(child.content for child in inline), [*tokens, *inline]


TEXT = (
    st.text(max_size=40) | st.sampled_from(HOSTILE) | st.text("`|\\*_<>[]()#-+1. \n", max_size=20)
)


@given(TEXT)
def test_plain_text_is_shown_as_it_is(text):
    seen, tokens = rendered(f"a {plain(text)} z")
    wanted = f"a {visible(text)} z".replace("\u200b", "")
    assert re.sub(r"\s+", " ", seen.replace("\u200b", "")) == re.sub(r"\s+", " ", wanted)
    assert {t.type for t in tokens} <= {
        "paragraph_open", "paragraph_close", "inline", "text", "text_special",
    }  # fmt: skip


@given(TEXT)
def test_text_at_the_start_of_a_line_begins_no_block(text):
    _, tokens = rendered(plain(text) or "x")
    kinds = {t.type for t in tokens}
    assert not kinds & {"heading_open", "bullet_list_open", "ordered_list_open", "hr", "fence"}


@given(TEXT)
def test_a_name_is_one_piece_of_code_even_in_a_table(text):
    _, tokens = rendered(f"| a | b |\n| --- | --- |\n| {code(text)} | {plain(text)} |")
    assert sum(t.type == "td_open" for t in tokens) == 2
    pieces = [t.content for t in tokens if t.type == "code_inline"]
    name = shortened(text)
    assert pieces == ([name] if name else [])


@pytest.mark.parametrize("text", ["@everyone", "see http://example.org", "www.example.org"])
def test_nobody_is_mentioned_and_nothing_is_linked(text):
    linking = markdown_it.MarkdownIt("gfm-like", {"linkify": False})
    assert "<a" not in linking.render(plain(text))
    assert not re.search(r"@\w|://|www\.", plain(text))


@pytest.fixture(scope="module")
def hostile():
    return markdown_page(made_report(HOSTILE))


def test_there_is_no_html_and_no_link_in_it(hostile):
    _, tokens = rendered(hostile)
    kinds = {t.type for t in tokens}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block"}
    # of ours, and not of a name
    assert sum(t.type == "heading_open" for t in tokens) == 1


def test_every_row_has_the_cells_of_its_table(hostile):
    _, tokens = rendered(hostile)
    cells, head = [], 0
    for token in tokens:
        if token.type == "th_open":
            head += 1
        elif token.type == "table_open":
            head = 0
        elif token.type == "tr_open":
            cells = []
        elif token.type == "td_open":
            cells.append(token)
        elif token.type == "tr_close" and cells:
            assert len(cells) == head
    assert head


def test_it_begins_with_the_verdict():
    assert markdown_page(made_report()).startswith("### ")
    first = markdown_page(made_report()).splitlines()[0]
    assert first.endswith("4.0x smaller, 2.0x faster, 21.5 dB, -1.00 points top-1")


def test_the_worst_layers_are_listed_worst_first():
    report = made_report([f"node{i}" for i in range(30)])
    lines = markdown_page(report).splitlines()
    listed = [line for line in lines if re.match(r"\| \d+: `node", line)]
    errors = [float(re.search(r"\| (\S+) dB", line)[1]) for line in listed]
    assert len(listed) == 10
    wanted = sorted(e.isolated_sqnr_db for e in report.errors if e.isolated_sqnr_db is not None)
    assert errors == wanted[:10]


def test_what_was_not_measured_is_said():
    older = msgspec.structs.replace(made_report(), errors=(), profile=None, histograms=None)
    assert "quantize again with --report" in markdown_page(older).replace("\\", "")
