"""What a load test must reach: terms such as `p99=50ms,errors=0%`, and the verdict on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from builder.errors import SpecError
from builder.findings import Finding
from builder.loadtest.records import LoadResult
from builder.records import RecordError, read_record

Quantity = Literal["p50", "p90", "p95", "p99", "max", "errors", "rps"]

LATENCIES: Final[dict[str, str]] = {
    "p50": "p50_ms",
    "p90": "p90_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "max": "max_ms",
}
UNIT_MS: Final[dict[str, float]] = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
FORM: Final = "write it like p99=50ms,errors=0%,rps=100 (p50, p90, p95, p99, max in us, ms or s)"
REGRESSION: Final = 0.10
"""How much worse than the baseline is a regression."""


@dataclass(frozen=True, slots=True)
class SloTerm:
    """One limit: milliseconds at most for latencies, per cent at most for errors, requests/s at least for rps."""

    quantity: Quantity
    limit: float
    text: str


def parse_slo(text: str) -> tuple[SloTerm, ...]:
    """The terms of `--slo`; an empty text has none.

    Raises:
        SpecError: a term has another form.
    """
    return tuple(_parse_term(part.strip()) for part in text.split(",") if part.strip())


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `2m`, `1h`, `500ms`.

    Raises:
        SpecError: the text is no positive duration.
    """
    milliseconds = _milliseconds(text.strip())
    if not milliseconds:
        raise SpecError(f"{text!r} is no duration", remedy="write it like 30s, 2m or 500ms")
    return milliseconds / 1000


def _parse_term(part: str) -> SloTerm:
    name, _, value = (piece.strip() for piece in part.partition("="))
    limit = None
    if name in LATENCIES:
        limit = _milliseconds(value)
    elif name == "errors":
        limit = _number(value, "%")
    elif name == "rps":
        limit = _number(value, "")
    if limit is None:
        raise SpecError(f"{part!r} is no term of an SLO", remedy=FORM)
    return SloTerm(name, limit, f"{name}={value}")  # type: ignore[arg-type]


def _milliseconds(value: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)", value)
    return float(found[1]) * UNIT_MS[found[2]] if found else None


def _number(value: str, unit: str) -> float | None:
    found = re.fullmatch(rf"(\d+(?:\.\d+)?){unit}", value)
    return float(found[1]) if found else None


def judge_slo(result: LoadResult, slo: tuple[SloTerm, ...]) -> tuple[Finding, ...]:
    """One error for each term that was missed; failed requests are an error unless a term allows them."""
    terms = slo if any(term.quantity == "errors" for term in slo) else (*slo, SloTerm("errors", 0.0, "errors=0%"))
    model = ",".join(result.models)
    missed = [(term, _missed(result, term)) for term in terms]
    return tuple(
        Finding("error", f"slo.{term.quantity}", text, remedy=_remedy(term), model=model)
        for term, text in missed
        if text
    )


def _missed(result: LoadResult, term: SloTerm) -> str:
    if term.quantity == "errors":
        if result.error_percent <= term.limit:
            return ""
        total = result.requests + result.failures
        first = f"; the first: {result.failure_texts[0]}" if result.failure_texts else ""
        share = f"{result.failures} of {total} requests failed ({result.error_percent:.2f} %)"
        return f"{share}, allowed {term.limit:g} %{first}"
    if term.quantity == "rps":
        got = result.requests_per_s
        return "" if got >= term.limit else f"{got:.1f} requests/s, required at least {term.limit:g}"
    got = float(getattr(result, LATENCIES[term.quantity]))
    return "" if got <= term.limit else f"{term.quantity} {got:.2f} ms, allowed {term.limit:g} ms"


def _remedy(term: SloTerm) -> str:
    if term.quantity == "errors":
        return "see the failures in the report and the server's log"
    return "use fewer users, a faster target, or batching and more instances; or relax the SLO"


def compare_baseline(result: LoadResult, baseline_file: Path) -> tuple[Finding, ...]:
    """Errors where p99 or throughput is more than 10 % worse than in a result kept earlier.

    Raises:
        SpecError: the file is no load test result.
    """
    try:
        baseline = read_record(LoadResult, baseline_file)
    except (OSError, RecordError) as error:
        msg = f"the baseline {baseline_file} cannot be used: {error}"
        raise SpecError(msg, remedy="give the result.json of an earlier load test's report folder") from error
    findings = [] if _setting(result) == _setting(baseline) else [_other_setting(result, baseline)]
    if result.p99_ms > baseline.p99_ms * (1 + REGRESSION):
        findings.append(_regression(result, "p99", f"{result.p99_ms:.2f} ms", f"{baseline.p99_ms:.2f} ms"))
    if result.requests_per_s < baseline.requests_per_s * (1 - REGRESSION):
        speeds = (f"{result.requests_per_s:.1f} requests/s", f"{baseline.requests_per_s:.1f}")
        findings.append(_regression(result, "rps", *speeds))
    return tuple(findings)


def _setting(result: LoadResult) -> tuple[object, ...]:
    return (result.models, result.protocol, result.users, result.rate)


def _other_setting(result: LoadResult, baseline: LoadResult) -> Finding:
    text = f"the baseline was measured otherwise: {_setting(baseline)}, now {_setting(result)}"
    remedy = "measure both with the same models, protocol, users and rate"
    return Finding("warning", "baseline.setting", text, remedy=remedy, model=",".join(result.models))


def _regression(result: LoadResult, quantity: str, got: str, expected: str) -> Finding:
    text = f"{quantity} {got}, the baseline has {expected}: more than {REGRESSION:.0%} worse"
    remedy = "find what changed, or keep this result as the new baseline"
    return Finding("error", f"baseline.{quantity}", text, remedy=remedy, model=",".join(result.models))
