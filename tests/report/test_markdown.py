"""The Markdown of a small repository holds its facts, in tables that a code host draws."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from builder.report import read_facts, render
from builder.report.charts import Table
from builder.report.markdown import escape, fence, table
from builder.report.words import milliseconds, number, percent, size, times

NUMBER = re.compile(r"\d[\d.,]*(e-?\d+)?( (kB|MB|GB|B|ms|s|µs))?")

GOLDEN = """\
## lossy

**Served as onnxruntime:fp32: # a request in process, with the source's own answers.**

No tuning: onnxruntime:fp32 is the only target that passed; next: build-repo tune models.yaml, which measures on the \
live server. tensorrt:fp32: deferred, nothing of it was measured. Live check: not done.

| target | one request | in process | size | memory | computes in | error | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- |
| onnxruntime:fp32 | # | # rows/s | # | # | fp32 | # | served |
| openvino:fp16 | # | # rows/s | # | # | fp# | # % | rejected: output 'y': largest error # of the output's largest \
magnitude (# absolute), allowed # |
| tensorrt:fp32 | - | - | - | - | - | - | deferred: tensorrt:fp32 cannot be built here (MACHINE); nothing of it is \
checked or served |
"""


def plain(text: str) -> str:
    """Without what differs from machine to machine; CPUs with bfloat16 compute in it what others compute in fp32."""
    text = re.sub(r"cannot be built here \(.*?\);", "cannot be built here (MACHINE);", text)
    text = re.sub(r"\| (fp32|bf16)( [\d.]+ %)? \| (?=[\d.e-]+ % \| rejected)", "| fp# | ", text)
    return re.sub(r"(?<![:fp\w])" + NUMBER.pattern, "#", text)


@pytest.fixture(scope="module")
def text(built: Path) -> str:
    return render(read_facts(built / "repo"), ".md")


def test_a_rejected_and_a_deferred_target_beside_the_served_one(text: str) -> None:
    section = text[text.index("## lossy") :]
    assert plain(section).startswith(GOLDEN), plain(section)[: len(GOLDEN) + 200]


def test_findings_come_with_their_remedies(text: str) -> None:
    section = text[text.index("## doubles") : text.index("## lossy")]
    assert "- **warning** openvino:fp32: Triton's openvino backend cannot serve this model" in section
    assert "Do: remove openvino:fp32 from the targets" in section


def test_every_model_ensemble_and_command_is_there(text: str) -> None:
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["best", "classifier", "doubles", "linear", "lossy", "pipeline", "Make it again"]
    assert "\n```\nbuild-repo build models.yaml -o repo --defer --check offline\n```\n" in text
    assert "Version 1 of the spec" in text
    assert text.count("<details>") == text.count("</details>") > 10


def test_tables_are_whole(text: str, tuned_repository: Path) -> None:
    for found in (text, render(read_facts(tuned_repository), ".md")):
        blocks = re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE)
        assert len(blocks) > 15
        for block in blocks:
            lines = block.splitlines()
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, block
            assert re.fullmatch(r"\|( --- \|)+", lines[1]), block
        assert not re.search(r"[^\n]\n\| [^|]+ \|.*\n\| ---", found), "a table begins after an empty line"


def test_a_reader_of_markdown_sees_tables_and_nothing_raw(text: str, tuned_repository: Path) -> None:
    """Drawn by the parser that rich brings."""
    from markdown_it import MarkdownIt

    for found in (text, render(read_facts(tuned_repository), ".md")):
        html = MarkdownIt("commonmark").enable("table").render(found)
        assert html.count("<table>") == len(re.findall(r"^\|( --- \|)+$", found, re.MULTILINE))
        shown = re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
        assert "**" not in shown
        assert "| ---" not in shown
        assert shown.count("<details>") == shown.count("</details>")


def test_what_was_tried_is_told(tuned_repository: Path) -> None:
    text = render(read_facts(tuned_repository), ".md")
    assert (
        "| openvino:int8, no batching, 2 instances, 1 thread each | 1,320 rows/s | 1,290 rows/s to 1,350 rows/s |"
        in text
    )
    assert "refused: p99 61 ms, the SLO allows 50 ms" in text
    assert "Rows a run in the mean: 1.00 tuned and 3.17 default." in text


def test_names_cannot_break_out(built: Path) -> None:
    facts = read_facts(built / "repo")
    evil = "a|b`c<script>*d*\n# e"
    text = render(replace(facts, models=(replace(facts.models[0], name=evil),)), ".md")
    assert "<script>" not in text
    assert "## a\\|b\\`c\\<script\\>\\*d\\* \\# e" in text


def test_small_parts() -> None:
    assert escape("a_b | c") == "a\\_b \\| c"
    assert table(Table(("x", "y"), (("1", "2"),))) == "| x | y |\n| --- | --- |\n| 1 | 2 |"
    assert fence("a `b` ``` c").startswith("````\n")
    assert fence("plain") == "```\nplain\n```"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(0), "0"), (number(0.02274), "0.0227"), (number(50), "50"), (number(1319.6), "1,320"),
        (number(322_581), "323,000"), (number(float("inf")), "inf"), (number(-12.34), "-12.3"),
        (milliseconds(None), "-"), (milliseconds(1200), "1.2 s"), (milliseconds(0.5), "0.5 ms"),
        (size(472), "472 B"), (size(1_150_000), "1.15 MB"), (size(None), "-"),
        (percent(0.98333), "98.3 %"), (percent(1.0), "100 %"), (percent(0), "0"), (percent(1.7e-7), "1.7e-5 %"),
        (percent(0.0052), "0.52 %"), (times(3.204), "3.2\u00d7"), (times(412.0), "412\u00d7"),
    ],
)  # fmt: skip
def test_figures_in_words(said: str, expected: str) -> None:
    assert said == expected
