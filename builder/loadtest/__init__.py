"""Load tests: Locust in its own process (it patches the standard library), its figures as a record."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from builder.errors import MachineError, ServeError, SpecError
from builder.loadtest.payloads import save_payload
from builder.loadtest.process import Progress, run_locust
from builder.loadtest.records import LoadOptions, LoadResult, LoadSubject
from builder.loadtest.slo import compare_baseline, judge_slo, parse_duration, parse_slo
from builder.records import write_record
from builder.resources import resource
from builder.servers import Endpoint
from builder.triton_client import SPELLED, Protocol

__all__ = [
    "LoadOptions",
    "LoadResult",
    "LoadSubject",
    "compare_baseline",
    "judge_slo",
    "parse_duration",
    "parse_slo",
    "run_load_test",
]

SHAPES: Final = ("constant",)
CONNECTIONS: Final = 64
"""At most so many requests under way in a test of a fixed rate."""
BUSY: Final = 0.9
"""Share of one core from which the generator, which cannot use two, is the limit."""


def run_load_test(
    endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions, *, progress: Progress
) -> LoadResult:
    """Send requests for `duration_s` after a short warm-up; also writes `result.json` into the report folder.

    Raises:
        SpecError: an option has no meaning.
        MachineError: Locust is not installed.
        ServeError: the server is gone, Locust failed, or no request was answered.
    """
    _refuse_wrong(endpoint, models, options)
    options.report.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-repo-load-") as scratch:
        summary = Path(scratch) / "summary.json"
        command = _command(endpoint, models, options, Path(scratch), summary)
        output = run_locust(command, endpoint, options.duration_s, progress)
        figures = _read_summary(summary, output)
    result = _result(figures, models, options)
    write_record(options.report / "result.json", result)
    return result


def _refuse_wrong(endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions) -> None:
    if options.shape not in SHAPES:
        raise SpecError(f"unknown load shape {options.shape!r}", remedy=f"choose one of: {', '.join(SHAPES)}")
    if not models:
        raise SpecError("no model to call", remedy="name one: --model NAME")
    if options.users < 1 or options.duration_s <= 0 or (options.rate is not None and options.rate <= 0):
        wrong = f"users {options.users}, duration {options.duration_s:g} s, rate {options.rate}"
        raise SpecError(f"nothing would be sent: {wrong}", remedy="all must be above zero")
    if _address(endpoint, options.protocol) is None:
        msg = f"the server offers no {SPELLED[options.protocol]}"
        raise SpecError(msg, remedy="choose the other protocol: --protocol http or grpc")
    if find_spec("locust") is None:
        raise MachineError("Locust is not installed", remedy="pip install 'build-repo[load]'")


def _address(endpoint: Endpoint, protocol: Protocol) -> str | None:
    return endpoint.grpc if protocol == "grpc" else endpoint.http


def _users(options: LoadOptions) -> int:
    """With a fixed rate users are only connections; too few of them would hold the arrivals back."""
    return options.users if options.rate is None else max(options.users, min(CONNECTIONS, math.ceil(options.rate)))


def _command(
    endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions, scratch: Path, summary: Path
) -> list[str]:
    users = _users(options)
    scheme = options.protocol + ("s" if endpoint.tls else "")
    report = options.report.absolute()
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py"), "--headless"]
    command += ["--host", f"{scheme}://{_address(endpoint, options.protocol)}", "-u", str(users), "-r", str(users)]
    command += ["--only-summary", "--skip-log", "--exit-code-on-error", "0", "--summary", str(summary)]
    command += ["--csv", str(report / "load"), "--html", str(report / "load.html"), "--json-file", str(report / "load")]
    command += ["--measure-s", f"{options.duration_s:g}", "--request-timeout-s", f"{options.request_timeout_s:g}"]
    command += ["--rate", f"{options.rate:g}"] if options.rate is not None else []
    command += ["--ca-file", endpoint.ca_file] if endpoint.ca_file else []
    for name, value in endpoint.headers:
        command += ["--header", f"{name}:{value}"]
    for number, subject in enumerate(models):
        command += ["--model", subject.name]
        if subject.requests:
            file = scratch / f"{number}.npz"
            save_payload(file, subject.requests)
            command += ["--payload", f"{subject.name}={file}"]
    return command


def _read_summary(summary: Path, output: str) -> dict[str, Any]:
    try:
        figures = cast("dict[str, Any]", json.loads(summary.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ServeError(
            f"Locust failed before it measured anything:\n{output}", remedy="see its words above"
        ) from error
    if figures["problem"]:
        raise ServeError(
            f"the load test could not start: {figures['problem']}", remedy="build-repo check tries one request"
        )
    if not figures["requests"]:
        texts = "; ".join(f"{count} x {text}" for text, count in figures["failure_texts"]) or "none came back in time"
        raise ServeError(f"no request of the load test was answered: {texts}", remedy="see the server's log")
    return figures


def _result(figures: dict[str, Any], models: Sequence[LoadSubject], options: LoadOptions) -> LoadResult:
    elapsed, latency = figures["elapsed_s"], figures["latency_ms"]
    cores = figures["cpu_s"] / elapsed
    batch_mean, queue_ms, compute_ms = _server_side(figures["before"], figures["after"])
    report = options.report
    return LoadResult(
        models=tuple(subject.name for subject in models),
        protocol=options.protocol,
        users=_users(options),
        rate=options.rate,
        duration_s=elapsed,
        requests=figures["requests"],
        failures=figures["failures"],
        requests_per_s=figures["requests"] / elapsed,
        rows_per_s=figures["rows"] / elapsed,
        mean_ms=figures["mean_ms"],
        p50_ms=latency["50"],
        p90_ms=latency["90"],
        p95_ms=latency["95"],
        p99_ms=latency["99"],
        max_ms=figures["max_ms"],
        failure_texts=tuple(f"{count} x {text}" for text, count in figures["failure_texts"]),
        batch_mean=batch_mean,
        queue_ms=queue_ms,
        compute_ms=compute_ms,
        generator_cores=cores,
        machine_cores=os.cpu_count() or 1,
        notes=_notes(cores, figures, options),
        html=str(report / "load.html"),
        csv=tuple(str(path) for path in sorted(report.glob("load_*.csv"))),
        json=str(report / "load.json"),
    )


def _server_side(
    before: dict[str, int] | None, after: dict[str, int] | None
) -> tuple[float | None, float | None, float | None]:
    """Mean rows per run, mean queue and compute milliseconds per request, from Triton's statistics."""
    if before is None or after is None:
        return None, None, None
    happened = {name: count - before.get(name, 0) for name, count in after.items()}
    executions, requests = happened.get("executions", 0), happened.get("requests", 0)
    if executions < 1 or requests < 1:
        return None, None, None
    compute = sum(happened.get(f"compute_{step}_ns", 0) for step in ("input", "infer", "output"))
    return happened["inferences"] / executions, happened["queue_ns"] / requests / 1e6, compute / requests / 1e6


def _notes(cores: float, figures: dict[str, Any], options: LoadOptions) -> tuple[str, ...]:
    notes = []
    if cores > BUSY:
        notes.append(f"the load generator used {cores:.2f} cores and can use about one: it limits these figures")
    if options.rate is not None and figures["requests"] / figures["elapsed_s"] < 0.95 * options.rate:
        got = figures["requests"] / figures["elapsed_s"]
        notes.append(f"{got:.1f} requests/s were answered of {options.rate:g} that arrived: the server fell behind")
    return tuple(notes)
