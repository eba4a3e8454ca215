from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.findings import Finding
from builder.junit import Case, write_junit


def test_failures_and_skips_are_counted(tmp_path: Path) -> None:
    bad = Finding("error", "accuracy.cosine", "cosine 0.5 < 0.999", "use fp32", "m")
    mild = Finding("warning", "live.unchecked", "not checked", "", "m")
    cases = [Case("good", (), 1.5), Case("bad", (bad, bad, mild)), Case("left out", (mild,), skipped="no backend")]
    write_junit(tmp_path / "r.xml", "suite", cases)
    root = ET.parse(tmp_path / "r.xml").getroot()
    assert root.attrib == {"name": "suite", "tests": "3", "failures": "1", "skipped": "1"}
    good, failed, skipped = root
    assert good.attrib == {"classname": "suite", "name": "good", "time": "1.500"}
    assert len(good) == 0
    assert [item.get("type") for item in failed] == ["accuracy.cosine"] * 2
    assert failed[0].text == "use fp32"
    assert skipped[0].attrib == {"message": "no backend"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_makes_readable_xml(tmp_path: Path, text: str) -> None:
    finding = Finding("error", "check", text, text)
    write_junit(tmp_path / "r.xml", "suite", [Case(text, (finding,), skipped=text)])
    assert len(ET.parse(tmp_path / "r.xml").getroot()) == 1
