"""The page in a real browser: Debian's Chromium without a window, if it is installed."""

import html
import json
import re
import shutil
import subprocess

import pytest
from support.reports import HOSTILE, made_report

from ptq.report.page import html_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

#: What `--blink-settings=preferredColorScheme` takes.
SCHEMES = {"dark": 0, "light": 1}

#: Put at the end of a copy of the page, whose policy allows no script but ours: what was laid out.
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, wide = [];
  for (const one of document.body.querySelectorAll("*")) {
    const box = one.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !one.closest("svg")) wide.push(one.tagName);
  }
  const table = document.getElementById("layers"), head = table.tHead.rows[0].cells[3];
  const column = (i) => [...table.tBodies[0].rows].map((row) => row.cells[i].textContent);
  head.click();
  const up = column(3);
  head.click();
  const down = column(3), filter = document.querySelector(".filter");
  filter.value = "BLOCK.3";
  filter.dispatchEvent(new Event("input"));
  const left = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const filtered = left.map((row) => row.querySelector("code").textContent);
  const style = getComputedStyle(document.body);
  root.dataset.probe = JSON.stringify({
    scroll: root.scrollWidth, width: innerWidth, wide,
    up, down, filtered, paper: style.backgroundColor, ink: style.color,
  });
});
</script>"""


def run(page, profile, *options):
    """Open a page and return what Chromium wrote: the document if it is to be dumped, its log."""
    arguments = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={profile}", "--virtual-time-budget=2000", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def said_on_console(log):
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, names in (("ordinary", None), ("hostile", HOSTILE)):
        page = html_page(made_report(names) if names else made_report())
        found[name] = folder / f"{name}.html"
        found[name].write_text(page, encoding="utf-8")
        policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
        probed = policy.sub("", page).replace("</body>", f"{PROBE}</body>")
        found[f"{name} probed"] = folder / f"{name}_probed.html"
        found[f"{name} probed"].write_text(probed, encoding="utf-8")
    return found


def probed(pages, name, profile, *options):
    """Return what the probe saw."""
    document, _ = run(pages[f"{name} probed"], profile, "--dump-dom", *options)
    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', document)[1]))


def test_our_script_runs_and_no_other_and_nothing_is_complained_of(pages, tmp_path):
    document, log = run(pages["hostile"], tmp_path, "--dump-dom")
    assert said_on_console(log) == []
    assert 'class="filter"' in document, "our script made the field"
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1]
    assert title.endswith("ptq report"), "a name that runs as a script would set another"
    assert not re.search(r"<(img|iframe|object|embed|link)\b", document)
    assert document.count("<script") == 1


def test_the_browser_would_refuse_a_script_that_is_not_ours(pages, tmp_path):
    page = pages["ordinary"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    script = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    broken.write_text(page.replace("</body>", f"{script}</body>"), encoding="utf-8")
    document, log = run(broken, tmp_path / "profile", "--dump-dom")
    assert "<title>owned" not in document
    assert said_on_console(log), "the policy is told of"


@pytest.mark.parametrize("width", [500, 640, 1280])
def test_nothing_is_wider_than_the_window(width, pages, tmp_path):
    seen = probed(pages, "hostile", tmp_path, f"--window-size={width},900")
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["wide"] == []


def test_layers_are_sorted_by_a_click_and_filtered_by_a_word(pages, tmp_path):
    seen = probed(pages, "ordinary", tmp_path)
    isolated = [e.isolated_sqnr_db for e in made_report().errors]
    unknown = ["–"] * isolated.count(None)
    known = sorted(d for d in isolated if d is not None)
    assert seen["up"] == [f"{d:.1f}" for d in known] + unknown
    assert seen["down"] == [f"{d:.1f}" for d in reversed(known)] + unknown, "unknown ones stay last"
    assert seen["filtered"] == ["/block.3/Conv"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_dark_or_light_as_the_reader_wants(scheme, pages, tmp_path):
    setting = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    seen = probed(pages, "ordinary", tmp_path, setting)
    paper, ink = (_luminance(seen[part]) for part in ("paper", "ink"))
    assert (paper < ink) == (scheme == "dark")
    # 7 is what WCAG 2.2 asks of enhanced contrast (criterion 1.4.6)
    assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 7


def _luminance(colour):
    """Return the relative luminance of ``rgb(r, g, b)``, as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_prints_on_paper(pages, tmp_path):
    paper = tmp_path / "page.pdf"
    run(pages["hostile"], tmp_path / "profile", f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 3, (
        "sections begin on pages of their own"
    )
