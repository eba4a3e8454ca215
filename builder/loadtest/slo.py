"""What a load test must reach: terms such as `p99=50ms,errors=0%`, and the verdict on them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from builder.errors import SpecError
from builder.findings import Finding
from builder.loadtest.records import LoadResult, Verdict

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
    terms = _with_errors(slo)
    model = ",".join(result.models)
    if result.shape == "step" and not result.held_rate:
        return (_never_held(result, model),)
    missed = [(term, _missed(result, term)) for term in terms]
    return tuple(
        Finding("error", f"slo.{term.quantity}", text, remedy=_remedy(term), model=model)
        for term, text in missed
        if text
    )


def slo_verdicts(result: LoadResult, slo: tuple[SloTerm, ...]) -> tuple[Verdict, ...]:
    """Each term with what was seen; none where no SLO was asked for."""
    terms = [_verdict(result, term) for term in (_with_errors(slo) if slo else ())]
    if result.shape == "step" and not result.held_rate:
        lowest = min((level.rate for level in result.levels), default=0.0)
        return (Verdict("slo", "rate", held=False, seen=0.0, limit=lowest, unit="requests/s"), *terms)
    return tuple(terms)


def _with_errors(slo: tuple[SloTerm, ...]) -> tuple[SloTerm, ...]:
    """No request may fail unless a term allows it."""
    return slo if any(term.quantity == "errors" for term in slo) else (*slo, SloTerm("errors", 0.0, "errors=0%"))


def _verdict(result: LoadResult, term: SloTerm) -> Verdict:
    seen, unit = result.error_percent, "%"
    if term.quantity == "rps":
        seen, unit = result.requests_per_s, "requests/s"
    elif term.quantity != "errors":
        seen, unit = float(getattr(result, LATENCIES[term.quantity])), "ms"
    return Verdict("slo", term.quantity, not _missed(result, term), seen, term.limit, unit)


def _never_held(result: LoadResult, model: str) -> Finding:
    lowest = min((level.rate for level in result.levels), default=0.0)
    text = f"no rate held the SLO, down to {lowest:.1f} requests/s"
    return Finding("error", "slo.rate", text, remedy="relax the SLO, or make the model faster", model=model)


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


def limits_of(slo: tuple[SloTerm, ...]) -> tuple[tuple[str, float], ...]:
    """What a search for a rate must hold: latencies in ms and errors in per cent."""
    return tuple((term.quantity, term.limit) for term in slo if term.quantity != "rps")
