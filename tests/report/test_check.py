"""How a check reads: in a terminal, as JUnit XML, and as Markdown, whatever the names are."""

from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.figures import size, sqnr, top1

from ptq.report.check import BASELINE, MAX_DROP, Check, Fault, Figure, Held
from ptq.report.check_markdown import check_markdown
from ptq.report.check_text import check_text
from ptq.report.junit import junit_xml
from ptq.report.report import Environment

TOP1 = top1(0.02, 0.01, 0.03, reference=0.98, value=0.96, lo=0.95, hi=0.97, units=400)
SQNR = msgspec.structs.replace(sqnr(28.1, units=400), lo=None, hi=None)
SIZE = size(300_000, reference=1_000_000)
INTEGER = Figure(
    name="integer_kernels",
    title="integer kernels",
    unit="share",
    higher_is_better=True,
    value=0.5,
    note="5 of 10 run as integer kernels",
)
DROP = Held(figure="topk", option=MAX_DROP, measured=0.02, limit=0.005, verdict="missed")
GREW = Held(
    figure="sqnr", option=BASELINE, measured=28.1, limit=30.7, was=31.2, tolerance=0.5,
    verdict="missed",
)  # fmt: skip
SMALL = Held(figure="size_bytes", option="--max-size-ratio", measured=0.3, limit=0.4,
             verdict="holds")  # fmt: skip
FLOAT = Held(figure="integer_kernels", option="--min-integer", measured=0.5, limit=0.9,
             verdict="missed")  # fmt: skip


def check(**fields) -> Check:
    """Return a check of four figures; what is given takes the place of the rest."""
    given = {
        "name": "m.onnx",
        "reference": "f.onnx",
        "quantized": "m.onnx",
        "data": "eval.npz",
        "samples": 400,
        "data_sha256": "00",
        "confidence": 0.95,
        "noise": "fail",
        "figures": (TOP1, SQNR, SIZE, INTEGER),
        "held": (DROP, GREW, SMALL, FLOAT),
        "improved": (),
        "faults": (
            Fault(node="/conv", op_type="Conv", tensor="t", why="6.0 dB by itself", sqnr_db=6.0),
            Fault(node="/relu", op_type="Relu", tensor="", why="no kernel"),
        ),
        "advice": "quantize again with the worst layers in float: --exclude /conv",
        "next_commands": ("ptq compare f.onnx m.onnx --data eval.npz --top 10",),
        "notices": (),
        "environment": Environment(ptq="0", onnxruntime="1", python="3", machine="m", cores=1),
        "latency": None,
        "baseline": "b.json",
        "updated": False,
        "stages_s": {"evaluate": 1.5},
    }
    return Check(**{**given, **fields})


def test_a_check_passes_if_nothing_is_missed():
    assert not check().passed
    assert check(held=(SMALL,)).passed
    assert check(held=(SMALL,)).verdict == "'m.onnx' holds: 1 figure checked"


def test_what_was_missed_is_named_with_is_and_limit_or_was():
    assert check().verdict == (
        "'m.onnx' misses 3 of 4: "
        "top-1 accuracy is worse by 2.00 points, the limit is 0.5 points (--max-drop); "
        "SQNR was 31.20 dB, is 28.10 dB (tolerance 0.50 dB); "
        "integer kernels is 50.00%, the limit is 90.00% (--min-integer)"
    )


def test_the_table_has_a_row_for_every_figure_and_every_threshold():
    text = check(held=(DROP, msgspec.structs.replace(GREW, figure="topk", was=0.97))).to_json()
    found = msgspec.json.decode(text, type=Check)
    lines = check_text(found).splitlines()
    assert lines[0].split() == [
        "float", "quantized", "drop", "95%", "interval", "limit", "verdict",
    ]  # fmt: skip
    assert " ".join(lines[1].split()) == (
        "top-1 accuracy 98.00% 96.00% 2.00 points 1.00..3.00 points ≤ 0.5 points missed"
    )
    assert lines[2].split()[:2] == ["was", "97.00%,"]
    assert lines[3].split() == ["SQNR", "28.10", "dB"]
    assert lines[4].split()[:6] == ["size", "1.00", "MB", "0.30", "MB", "0.3x"]


def test_layers_advice_and_commands_follow_the_table():
    text = check_text(check())
    assert "\n  /conv  Conv  6.0 dB by itself\n" in text
    assert "\nnext: quantize again with the worst layers in float: --exclude /conv\n" in text
    assert text.endswith("\n  ptq compare f.onnx m.onnx --data eval.npz --top 10")


def test_improvements_hint_at_the_update():
    text = check_text(check(improved=("sqnr",)))
    assert "better than the baseline: SQNR; --update-baseline keeps it so" in text


def test_json_decodes_into_its_type_and_says_whether_it_passed():
    content = check().to_json()
    assert msgspec.json.decode(content, type=Check) == check()
    assert msgspec.json.decode(content)["passed"] is False


# -- JUnit ------------------------------------------------------------------------------------


def test_a_threshold_is_a_test_case_and_a_miss_a_failure():
    root = ET.fromstring(junit_xml(check()))
    assert root.tag == "testsuites"
    [suite] = root
    cases = suite.findall("testcase")
    assert suite.attrib["tests"] == root.attrib["tests"] == "4"
    assert suite.attrib["failures"] == root.attrib["failures"] == "3"
    assert [case.attrib["name"] for case in cases] == [
        "top-1 accuracy --max-drop",
        "SQNR --baseline",
        "size --max-size-ratio",
        "integer kernels --min-integer",
    ]
    assert {case.attrib["classname"] for case in cases} == {"ptq.m.onnx"}
    assert [len(case.findall("failure")) for case in cases] == [1, 1, 0, 1]
    assert cases[1][0].attrib["message"] == "SQNR was 31.20 dB, is 28.10 dB (tolerance 0.50 dB)"


def test_a_failure_names_the_layers_that_have_to_do_with_it():
    cases = ET.fromstring(junit_xml(check())).findall("*/testcase")
    assert [case.findtext("failure") for case in cases] == [
        "/conv (Conv): 6.0 dB by itself",
        "/conv (Conv): 6.0 dB by itself",
        None,
        "/relu (Relu): no kernel",
    ]


@given(st.text())
def test_any_name_gives_xml_that_can_be_parsed(name):
    fault = Fault(node=name, op_type=name, tensor=name, why=name, sqnr_db=1.0)
    root = ET.fromstring(junit_xml(check(name=name, faults=(fault,), notices=(name,))))
    assert len(root.findall("*/testcase")) == 4


def test_markup_in_a_name_is_escaped():
    content = junit_xml(check(name='<a & "b">'))
    assert b"ptq.&lt;a &amp; &quot;b&quot;&gt;" in content


# -- Markdown ---------------------------------------------------------------------------------


def test_markdown_has_a_verdict_and_a_table():
    lines = check_markdown(check()).splitlines()
    assert lines[0].startswith("**ptq check failed**: 'm.onnx' misses 3 of 4: top-1 accuracy")
    assert lines[2] == "|  | float | quantized | drop | 95% interval | limit | verdict |"
    assert lines[4].startswith("| top-1 accuracy | 98.00% | 96.00% | 2.00 points |")
    assert lines[4].endswith("| **missed** |")
    assert "    ptq compare f.onnx m.onnx --data eval.npz --top 10" in lines


def test_markdown_of_a_check_that_holds_says_so():
    assert check_markdown(check(held=(SMALL,))).startswith("**ptq check passed**: 'm.onnx' holds")


@pytest.mark.parametrize("name", ["a|b", "<b>", "`x`", "*x*", "[a](b)", "a\nb", "a&lt;"])
def test_a_name_has_no_meaning_to_markdown(name):
    fault = Fault(node=name, op_type="Conv", tensor="", why="x", sqnr_db=1.0)
    text = check_markdown(check(faults=(fault,)))
    rows = [line for line in text.splitlines() if line.endswith("| Conv | x |")]
    assert len(rows) == 1
    cell = rows[0].removesuffix(" | Conv | x |").removeprefix("| ")
    plain = cell
    for character in "\\`*_{}[]()#|~!":
        plain = plain.replace(f"\\{character}", "")
    assert not set("`*[]()|<") & set(plain)
    assert "&lt;" not in name or "&amp;lt;" in cell
