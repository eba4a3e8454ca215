from __future__ import annotations

from dataclasses import replace

import pytest

from builder.errors import SpecError
from builder.loadtest import LoadResult, judge_slo, limits_of, parse_duration, parse_slo, slo_verdicts
from builder.loadtest.records import Level


def test_parse_slo() -> None:
    terms = parse_slo("p99=50ms, p50=0.5s,max=900us,errors=0.1%,rps=100")
    assert [(term.quantity, term.limit) for term in terms] == [
        ("p99", 50.0),
        ("p50", 500.0),
        ("max", pytest.approx(0.9)),
        ("errors", 0.1),
        ("rps", 100.0),
    ]
    assert parse_slo("") == ()


@pytest.mark.parametrize(
    "text", ["p99", "p99=50", "p98=5ms", "errors=1", "rps=10/s", "p99=-1ms", "=", "p99=50ms;errors=0%"]
)
def test_parse_slo_says_the_right_form(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_slo(text)
    assert "p99=50ms,errors=0%" in caught.value.remedy


def test_parse_duration() -> None:
    assert [parse_duration(text) for text in ("30s", "2m", "500ms", "1.5s")] == [30.0, 120.0, 0.5, 1.5]
    for text in ("", "30", "0s", "-1s", "s", "1d"):
        with pytest.raises(SpecError):
            parse_duration(text)


def test_judge_slo(result: LoadResult) -> None:
    assert judge_slo(result, parse_slo("p50=8ms,p90=12ms,p99=20ms,max=31ms,rps=100,errors=0%")) == ()
    assert [item.check for item in judge_slo(result, parse_slo("p50=7ms,p99=20ms,rps=101"))] == ["slo.p50", "slo.rps"]
    failing = replace(result, failures=3, failure_texts=("3 x refused",))
    assert [item.check for item in judge_slo(failing, ())] == ["slo.errors"]
    assert "refused" in judge_slo(failing, ())[0].message
    assert judge_slo(failing, parse_slo("errors=1%")) == ()


def test_limits_are_what_a_search_holds() -> None:
    assert limits_of(parse_slo("p99=50ms,errors=1%,rps=3")) == (("p99", 50.0), ("errors", 1.0))


def test_a_search_that_found_no_rate_has_missed(result: LoadResult) -> None:
    levels = (Level(4.0, held=False, behind=False, p99_ms=90.0, error_percent=0.0),)
    none = replace(result, shape="step", levels=levels, held_rate=0.0)
    assert [item.check for item in judge_slo(none, parse_slo("p99=50ms"))] == ["slo.rate"]
    fast = replace(none, levels=(replace(levels[0], rate=378.432),))
    assert "down to 378.4 requests/s" in judge_slo(fast, parse_slo("p99=50ms"))[0].message
    assert judge_slo(replace(none, held_rate=3.0), parse_slo("p99=50ms")) == ()
    assert [(item.quantity, item.held) for item in slo_verdicts(none, parse_slo("p99=50ms"))] == [
        ("rate", False),
        ("p99", True),
        ("errors", True),
    ]


def test_verdicts_agree_with_the_findings(result: LoadResult) -> None:
    terms = parse_slo("p50=7ms,p99=20ms,rps=101")
    verdicts = slo_verdicts(result, terms)
    missed = [f"slo.{item.quantity}" for item in verdicts if not item.held]
    assert missed == [item.check for item in judge_slo(result, terms)] == ["slo.p50", "slo.rps"]
    assert [(item.seen, item.limit, item.unit) for item in verdicts] == [
        (8.0, 7.0, "ms"),
        (20.0, 20.0, "ms"),
        (100.0, 101.0, "requests/s"),
        (0.0, 0.0, "%"),
    ]
    assert slo_verdicts(result, ()) == ()
