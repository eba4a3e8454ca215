"""The targets of a model side by side: from the manifest's records to facts; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from builder.findings import Finding
from builder.manifest import Numbers, TargetRecord, TargetTimings
from builder.measurement import Latency, PrepareReport
from builder.report.records import ServedLoad, TargetFacts
from builder.tuning_records import Tried, TunedModel


def target_facts(
    records: tuple[TargetRecord, ...],
    timings: Mapping[str, TargetTimings],
    chosen: str | None,
    tuning: TunedModel | None,
) -> tuple[TargetFacts, ...]:
    """Each target in the order of the spec."""
    return tuple(_facts(record, timings.get(str(record.target)), chosen, tuning) for record in records)


def _facts(
    record: TargetRecord, timing: TargetTimings | None, chosen: str | None, tuning: TunedModel | None
) -> TargetFacts:
    name = str(record.target)
    numbers = record.numbers
    outputs = numbers.outputs if numbers else ()
    latency = timing.latency if timing else ()
    return TargetFacts(
        target=name,
        status=record.status,
        chosen=name == chosen,
        verdict=_verdict(record, name == chosen),
        latency_ms=min(latency, key=lambda item: item.batch_size).median_ms if latency else None,
        rows_per_s=max(map(rows_per_s, latency), default=None),
        served=_served_load(name, tuning),
        latency=latency,
        size_bytes=record.size_bytes,
        memory_bytes=timing.peak_memory_bytes if timing else None,
        error=max((item.max_relative for item in outputs), default=None, key=badness),
        cosine=min((item.cosine for item in outputs), default=None, key=lambda cosine: -badness(-cosine)),
        mismatches=sum(item.mismatches for item in outputs),
        metric=numbers.metric if numbers else None,
        outputs=outputs,
        compute=numbers.compute if numbers else "",
        precision=numbers.precision if numbers else None,
        batch=numbers.batch if numbers else None,
        gates=record.gates,
        prepare=_prepare(record, timing),
        convert_key=record.convert_key,
        build_seconds=timing.seconds if timing else None,
        libraries=_of_works(record, "libraries"),
        machine=_of_works(record, "machine"),
        notes=_notes(numbers, record),
        findings=record.findings,
    )


def badness(error: float) -> float:
    """To sort by: what is no number is worse than every number."""
    return math.inf if math.isnan(error) else error


def rows_per_s(item: Latency) -> float:
    """In process; a model without a batch axis counts requests."""
    return 1000 * max(1, item.batch_size) / item.median_ms if item.median_ms > 0 else 0.0


def _verdict(record: TargetRecord, chosen: bool) -> str:
    if record.status == "built":
        return "served" if chosen else "passes every gate"
    said = _worst(record.findings)
    return f"{record.status}: {said.message.removeprefix(f'{record.status}: ')}" if said else record.status


def _worst(findings: tuple[Finding, ...]) -> Finding | None:
    ranks = {"error": 0, "warning": 1, "info": 2}
    return min(findings, key=lambda finding: ranks[finding.severity], default=None)


def best_tried(target: str, tuning: TunedModel) -> Tried | None:
    """The best setting of a target among those that may be chosen, else among the refused."""
    mine = [item for item in tuning.tried if item.setting.target == target]
    sign = 1 if tuning.objective.rises else -1
    return max(mine, key=lambda item: (not item.refused, sign * item.value), default=None)


def _served_load(target: str, tuning: TunedModel | None) -> ServedLoad | None:
    best = best_tried(target, tuning) if tuning else None
    if best is None:
        return None
    point = best.point
    return ServedLoad(point.rows_per_s, point.p50_ms, point.p99_ms, point.users, best.refused)


def _prepare(record: TargetRecord, timing: TargetTimings | None) -> PrepareReport | None:
    if record.prepare is None or timing is None or not timing.transforms:
        return record.prepare
    return replace(record.prepare, transforms=timing.transforms)


def _of_works(record: TargetRecord, field: str) -> dict[str, str]:
    """`libraries` or `machine` of all works of a target."""
    found: dict[str, str] = {}
    for work in record.works.values():
        found |= work.get(field) or {}
    return dict(sorted(found.items()))


def _notes(numbers: Numbers | None, record: TargetRecord) -> tuple[str, ...]:
    prepared = record.prepare.notes if record.prepare else ()
    return tuple(dict.fromkeys((*prepared, *(numbers.notes if numbers else ()))))
