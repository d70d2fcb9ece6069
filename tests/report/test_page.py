"""The report as a page."""

import json
import re
from html.parser import HTMLParser

import msgspec
import pytest
from support.reports import HOSTILE, made_report

from ptq.errors import ConfigError
from ptq.report import Report
from ptq.report.names import LONGEST, shortened, visible
from ptq.report.page import html_page

#: Elements without an end tag (HTML standard, void elements), and what ours are.
VOID = {"meta", "img", "br", "input", "link", "hr"}
OURS = {
    *("html", "head", "meta", "title", "style", "script", "body", "header", "section", "p", "pre"),
    *("h1", "h2", "h3", "ul", "li", "dl", "dt", "dd", "a", "b", "bdi", "code", "span", "strong"),
    *("table", "thead", "tbody", "tfoot", "tr", "th", "td", "details", "summary", "div"),
    *("figure", "figcaption", "svg", "g", "path", "rect", "circle", "text"),
}

#: Attributes that load something, or run something.
LOADING = re.compile(r"^(on.*|src|srcset|href|xlink:href|action|formaction|data|poster|style)$")


class Reader(HTMLParser):
    """Reads a page, and notes its elements, its attributes and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text, self.faults = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def ordinary():
    return html_page(made_report())


@pytest.fixture(scope="module")
def hostile():
    return html_page(made_report(HOSTILE))


def test_the_same_report_gives_the_same_page(ordinary):
    assert html_page(made_report()) == ordinary


def test_the_page_is_made_of_the_json_alone(ordinary):
    again = Report.from_json(made_report().to_json(), "report.json")
    assert html_page(again) == ordinary


@pytest.mark.parametrize("page", ["ordinary", "hostile"])
def test_tags_are_balanced_and_only_ours(page, request):
    read = Reader(request.getfixturevalue(page))
    assert read.faults == [] and read.open == []
    assert set(read.tags) <= OURS


@pytest.mark.parametrize("page", ["ordinary", "hostile"])
def test_nothing_is_loaded_and_nothing_runs_but_our_script(page, request):
    read = Reader(request.getfixturevalue(page))
    assert [a for a in read.attributes if LOADING.match(a[1])] == []
    assert read.tags.count("script") == 1
    assert "@import" not in request.getfixturevalue(page)
    assert "url(" not in request.getfixturevalue(page)


def test_the_browser_is_told_to_load_nothing(ordinary):
    [policy] = [v for _, n, v in Reader(ordinary).attributes if v.startswith("default-src")]
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='$", policy)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_every_name_is_shown_as_what_it_is(name, hostile):
    read = Reader(hostile)
    text, titles = "".join(read.text), [v for _, n, v in read.attributes if n == "title"]
    assert shortened(name) in text
    assert f"beware of {visible(name)}" in text
    if len(name) > LONGEST:
        assert any(visible(name) in title for title in titles)


def test_every_tensor_and_every_weight_has_a_histogram(hostile):
    text = "".join(Reader(hostile).text)
    report = made_report(HOSTILE)
    assert hostile.count('class="hist"') == 2 * len(HOSTILE)
    for found in (*report.histograms.activations, *report.histograms.weights):
        assert shortened(found.name) in text


def test_nothing_invisible_and_nothing_that_turns_text_gets_through(hostile):
    assert {c for c in hostile if not c.isprintable()} <= {"\n"}


def test_the_important_figures_come_first(ordinary):
    text = " ".join("".join(Reader(ordinary).text).split())
    assert "4.0x smaller, 2.0x faster, 21.5 dB, -1.00 points top-1" in text
    assert text.index("4.0x smaller") < text.index("beware of") < text.index("Where the error is")
    order = [
        "beware of",
        "Where the error is",
        "Where the time goes",
        "Layers",
        "Values and ranges",
    ]
    order += ["What became integer", "Settings", "Where it was measured"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)


def test_a_report_without_details_says_how_to_get_them():
    older = json.loads(made_report().to_json())
    for name in ("errors", "profile", "histograms", "outputs", "latencies", "placement"):
        del older[name]
    del older["environment"]["cpu"]
    page = html_page(Report.from_json(json.dumps(older).encode(), "older.json"))
    text = " ".join("".join(Reader(page).text).split())
    assert "quantize again with --report PAGE.html" in text
    assert "Where the error is" not in text and "Values and ranges" not in text
    assert Reader(page).faults == []


def test_a_report_on_nothing_but_a_plan_has_a_page():
    empty = msgspec.structs.replace(
        made_report(), output=None, outputs=(), accuracy=None, latency=None, latencies=(),
        evaluation=None, calibration=None, errors=(), profile=None, histograms=None, layers=(),
        placement=None, float_nodes=(), tensors=(), notices=(), stages_s={},
    )  # fmt: skip
    read = Reader(html_page(empty))
    assert read.faults == [] and "nothing was measured" in "".join(read.text)


def test_the_order_of_histograms_is_that_of_isolated_errors(ordinary):
    report = made_report()
    ranked = sorted(
        (e for e in report.errors if e.isolated_sqnr_db is not None),
        key=lambda e: e.isolated_sqnr_db,
    )
    names = re.findall(r'class="name"><bdi><code>([^<]*:0)<', ordinary)
    assert names[: len(ranked)] == [e.tensor for e in ranked]


def test_a_page_on_a_hundred_layers_is_no_larger_than_a_picture():
    names = [f"/model/stage.{i // 10}/block.{i}/branch/conv/Conv" for i in range(100)]
    report = made_report(names)
    assert len(html_page(report)) < 500_000
    assert len(report.to_json()) < 1_000_000


def test_a_report_of_another_schema_is_refused():
    newer = json.loads(made_report().to_json()) | {"schema": 99}
    with pytest.raises(ConfigError, match=r"'r.json' is a report of schema 99, .* schema 1;"):
        Report.from_json(json.dumps(newer).encode(), "r.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b"{}", b'{"schema": "1"}', b'{"schema": 1}', b"\x00" * 9],
)
def test_what_is_no_report_is_refused_in_one_line(content):
    with pytest.raises(ConfigError, match=r"^'r.json' is no report.*ptq quantize --json") as error:
        Report.from_json(content, "r.json")
    assert "\n" not in str(error.value)


def test_types_are_not_guessed():
    wrong = json.loads(made_report().to_json()) | {"conversions": "2"}
    with pytest.raises(ConfigError, match=r"conversions"):
        Report.from_json(json.dumps(wrong).encode(), "r.json")
