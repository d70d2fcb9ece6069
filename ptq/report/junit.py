"""A check as JUnit XML, which every CI system shows: a suite for the model, a case a threshold."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from ptq.report.check import Check, Held
from ptq.report.check_text import check_text

#: What XML 1.0 has no way to write, not even escaped; names in a model may hold anything.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(found: Check) -> bytes:
    """Return the check as JUnit XML: what was missed is a failure with was and is."""
    seconds = sum(found.stages_s.values())
    root, suite = _suite(found.name, len(found.held), seconds, failures=len(found.missed))
    for held in found.held:
        _case(suite, found, held)
    ET.SubElement(suite, "system-out").text = _text(check_text(found))
    return _written(root)


def junit_error(name: str, message: str) -> bytes:
    """Return a check that could not be run as JUnit XML: one case, with an error."""
    root, suite = _suite(name, 1, 0.0, errors=1)
    case = ET.SubElement(
        suite, "testcase", {"classname": _text(f"ptq.{name}"), "name": "ptq check"}
    )
    ET.SubElement(case, "error", {"message": _text(message), "type": "error"})
    return _written(root)


def _suite(
    name: str, tests: int, seconds: float, *, failures: int = 0, errors: int = 0
) -> tuple[ET.Element, ET.Element]:
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": 0}
    figures = {key: str(count) for key, count in counts.items()} | {"time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", {"name": "ptq check", **figures})
    return root, ET.SubElement(root, "testsuite", {"name": _text(f"ptq check {name}"), **figures})


def _written(root: ET.Element) -> bytes:
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _case(suite: ET.Element, found: Check, held: Held) -> None:
    names = {"classname": _text(f"ptq.{found.name}"), "time": "0"}
    names["name"] = _text(f"{found.figure(held.figure).title} {held.option}")
    case = ET.SubElement(suite, "testcase", names)
    if held.verdict == "missed":
        failure = ET.SubElement(
            case, "failure", {"message": _text(found.describe(held)), "type": _text(held.option)}
        )
        faults = [f"{f.name} ({f.op_type}): {f.why}" for f in found.faults_of(held)]
        failure.text = _text("\n".join([*filter(None, [held.remark]), *faults]))
    elif held.remark:
        ET.SubElement(case, "system-out").text = _text(held.remark)


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
