"""The result of a load test, from the log of requests and the readings of the server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import ServeError
from builder.findings import Finding
from builder.loadtest.answers import answer_findings
from builder.loadtest.command import users_of
from builder.loadtest.diagnosis import diagnose
from builder.loadtest.evidence import Evidence
from builder.loadtest.figures import (
    Log,
    late_starts,
    latency_fields,
    levels_of,
    percentile,
    silent_s,
    throughput_fields,
    windows_of,
)
from builder.loadtest.http_limit import body_finding
from builder.loadtest.records import (
    INTERRUPTED,
    NOTHING_MEASURED,
    AnswerFigures,
    LoadOptions,
    LoadResult,
    LoadSubject,
    MachineFigures,
    ModelFigures,
)
from builder.loadtest.sampling import Reading, Sampler
from builder.triton_client import Statistics

ALL_CALLED = 0.8
"""Of the requests that a model answered, the share that clients must have sent themselves for its rows to be known."""


@dataclass(frozen=True, slots=True)
class Course:
    """How the test went: what the conductor wrote, and what was sampled beside it."""

    run: Mapping[str, Any]
    log_file: Path
    sampler: Sampler
    ended: str

    @property
    def phase(self) -> Mapping[str, Any]:
        """The phase whose figures are told."""
        phase: Mapping[str, Any] = self.run["phases"][self.run["chosen"]]
        return phase

    def log(self) -> Log:
        """Its requests."""
        import numpy as np

        with np.load(self.log_file) as stored:
            rows = stored["rows"]
        return Log(rows[rows[:, -1] == self.phase["number"]], float(self.phase["elapsed_s"]))


def make_result(
    course: Course, models: Sequence[LoadSubject], options: LoadOptions, answers: AnswerFigures
) -> LoadResult:
    """All figures of the chosen phase.

    Raises:
        ServeError: no request was answered.
    """
    log, phase = course.log(), course.phase
    texts = tuple(f"{count} x {text}" for text, count in phase["failures"])
    if not len(log.answered.rows) and course.ended == INTERRUPTED:
        raise KeyboardInterrupt(NOTHING_MEASURED)
    if not len(log.answered.rows):
        msg = f"no request of the load test was answered: {'; '.join(texts) or 'none came back in time'}"
        raise ServeError(f"{msg}\n{course.ended}".strip(), remedy="see the server's log")
    served = course.sampler.served(phase["number"])
    figures = _model_figures(course, log, served)
    cpu = [part / max(log.elapsed_s, 1e-9) for part in phase["cpu_s"]] or _sampled_cpu(course)
    answered = len(log.answered.rows)
    result = LoadResult(
        **_setting_fields(course, models, options),
        duration_s=log.elapsed_s,
        requests=answered,
        failures=len(log.rows) - answered,
        **throughput_fields(log),
        **latency_fields(log),
        failure_texts=texts,
        late=late_starts(log),
        windows=windows_of(log),
        model_figures=figures,
        answers=answers,
        machine=_machine(course, sum(cpu)),
        **_server_side(served, figures),
        generator_cores=sum(cpu),
        busiest_generator=max(cpu, default=0.0),
        machine_cores=os.cpu_count() or 1,
        held_rate=course.run["held_rate"] if options.shape == "step" else None,
        missed_rate=course.run["missed_rate"] if options.shape == "step" else None,
        levels=levels_of(course.run["phases"]),
        ended=course.ended,
    )
    return replace(result, diagnosis=_diagnosis(result, course, models, log))


def _setting_fields(course: Course, models: Sequence[LoadSubject], options: LoadOptions) -> dict[str, Any]:
    """What was asked for."""
    rate = float(course.phase["rate"]) if options.is_open and course.phase["rate"] else None
    return {
        "models": tuple(subject.name for subject in models),
        "protocol": options.protocol,
        "users": users_of(options),
        "rate": rate,
        "arrivals": _arrivals(options),
        "shape": options.shape,
        "workers": options.workers,
    }


def _arrivals(options: LoadOptions) -> str:
    if options.replay is not None:
        return "replay"
    return options.arrivals if options.is_open else "closed"


def _diagnosis(result: LoadResult, course: Course, models: Sequence[LoadSubject], log: Log) -> tuple[Finding, ...]:
    gpus = [reading.gpu for reading in course.sampler.readings if reading.gpu is not None]
    offered = len(log.rows) / max(log.elapsed_s, 1e-9) if course.phase["kind"] == "open" else None
    evidence = Evidence(
        users=result.users,
        offered_per_s=offered,
        answered_per_s=result.requests_per_s,
        mean_ms=result.mean_ms,
        busiest_generator=result.busiest_generator,
        late=result.late,
        machine=result.machine,
        models=result.model_figures,
        gpu=max(gpus, default=None),
        silent_s=0.0 if course.ended else silent_s(log),
        broken_off="" if course.ended == INTERRUPTED else course.ended,
    )
    found = [*answer_findings(result.answers, result.models, result.model_figures), *diagnose(evidence)]
    body = body_finding(models, result)
    return tuple(found if body is None else [*found, body])


def _model_figures(course: Course, log: Log, served: Mapping[str, Statistics]) -> tuple[ModelFigures, ...]:
    called = {name: log.of_model(number) for number, name in enumerate(course.run["models"])}
    names, configs = dict.fromkeys([*called, *served]), course.sampler.configs
    return tuple(
        replace(
            _client_side(name, called.get(name)),
            **_served_fields(served.get(name), configs.get(name))
            | _rows_of_whole_requests(served.get(name), configs.get(name), called.get(name)),
        )
        for name in names
    )


def _rows_of_whole_requests(
    counts: Statistics | None, config: Mapping[str, Any] | None, log: Log | None
) -> dict[str, Any]:
    """Rows of a model that the server does not batch: it counts a request as one, only clients know of its rows."""
    import numpy as np

    if counts is None or config is None or int(config.get("max_batch_size", 0)):
        return {}
    sent = log.answered.column("rows").astype(int) if log is not None else np.asarray([], int)
    if len(sent) < ALL_CALLED * counts.requests:
        return {"rows": 0, "batches": ()}
    sizes, runs = np.unique(sent, return_counts=True)
    batches = tuple(zip(sizes.tolist(), runs.tolist(), strict=True))
    return {"rows": round(counts.executions * float(sent.mean())), "batches": batches}


def _client_side(name: str, log: Log | None) -> ModelFigures:
    if log is None or not len(log.rows):
        return ModelFigures(name)
    taken, rows = log.answered.latencies_ms, log.column("rows")
    return ModelFigures(
        name,
        requests=len(taken),
        failures=len(log.rows) - len(taken),
        p50_ms=percentile(taken, 50) if len(taken) else None,
        p99_ms=percentile(taken, 99) if len(taken) else None,
        row_sizes=(int(rows.min()), int(rows.max())),
    )


def _served_fields(counts: Statistics | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if counts is not None and counts.requests:
        fields = {
            "served": counts.requests,
            "rows": counts.inferences,
            "executions": counts.executions,
            "cache_hits": counts.cache_hits,
            "queue_ms": counts.queue_ns / counts.requests / 1e6,
            "compute_ms": counts.compute_ns / counts.requests / 1e6,
            "batches": counts.batches,
        }
    if config is not None:
        batching = config.get("dynamic_batching")
        fields |= {
            "max_batch_size": int(config.get("max_batch_size", 0)),
            "dynamic_batching": batching is not None,
            "queue_delay_us": int((batching or {}).get("max_queue_delay_microseconds", 0)),
            "instances": sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) or 1,
            "ensemble": config.get("ensemble_scheduling") is not None or config.get("platform") == "ensemble",
            "backend": str(config.get("backend", "")),
        }
    return fields


def _server_side(served: Mapping[str, Statistics], figures: Sequence[ModelFigures]) -> dict[str, Any]:
    """Mean rows per run, mean queue and compute milliseconds per request, of the models that do the work."""
    ours = [item for item in figures if item.name in served and not item.ensemble]
    working = [served[item.name] for item in ours]
    requests = sum(item.requests for item in working)
    runs = sum(item.executions for item in ours if item.rows)
    if not requests:
        return {"batch_mean": None, "queue_ms": None, "compute_ms": None}
    return {
        "batch_mean": sum(item.rows for item in ours) / runs if runs else None,
        "queue_ms": sum(item.queue_ns for item in working) / requests / 1e6,
        "compute_ms": sum(item.compute_ns for item in working) / requests / 1e6,
    }


def _machine(course: Course, generator_cores: float) -> MachineFigures:
    cores = os.cpu_count() or 1
    pair = course.sampler.between(course.phase["number"])
    if pair is None:
        return MachineFigures(cores, 0.0, 0.0, generator_cores)
    before, after = pair
    elapsed = max(1e-9, after.at_s - before.at_s)
    machine = MachineFigures(
        cores=cores,
        busy_cores=max(0.0, (after.busy_s - before.busy_s) / elapsed),
        steal_cores=max(0.0, (after.steal_s - before.steal_s) / elapsed),
        generator_cores=generator_cores,
    )
    return _with_server(machine, before, after, course) if course.sampler.pids else machine


def _with_server(machine: MachineFigures, before: Reading, after: Reading, course: Course) -> MachineFigures:
    elapsed = max(1e-9, after.at_s - before.at_s)
    used = max(0.0, after.server.cpu_s - before.server.cpu_s)
    taken = [late - before.held_back_s.get(group, late) for group, late in after.held_back_s.items()]
    waiting = None
    if before.server.waited_s is not None and after.server.waited_s is not None:
        stood = max(0.0, after.server.waited_s - before.server.waited_s)
        waiting = stood / (stood + used) if stood + used > 0 else 0.0
    return replace(
        machine,
        server_cores=used / elapsed,
        server_allowed=course.sampler.allowed,
        server_waiting=waiting,
        server_held_back=max([0.0, *taken]) / elapsed,
        server_bytes=(before.server.resident_bytes, after.server.resident_bytes),
    )


def _sampled_cpu(course: Course) -> list[float]:
    """Of a test that was broken off: what its processes used as seen from outside."""
    pair = course.sampler.between(course.phase["number"])
    if pair is None:
        return []
    before, after = pair
    elapsed = max(1e-9, after.at_s - before.at_s)
    return [
        max(0.0, (late.cpu_s - early.cpu_s) / elapsed)
        for early, late in zip(before.generators, after.generators, strict=False)
    ]
