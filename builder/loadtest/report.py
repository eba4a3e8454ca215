"""The report's files: `result.json`, `requests.csv` (also a trace), `server.csv`, `report.html`; Locust adds CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import __version__
from builder.loadtest.figures import OUTCOMES, Log, windows_of
from builder.loadtest.plots import Plot, bar_plot, line_plot
from builder.loadtest.records import LoadOptions, LoadResult, ModelFigures, Verdict
from builder.loadtest.result import Course
from builder.loadtest.sampling import Reading
from builder.records import write_record, write_text
from builder.resources import resource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLOTTED = 60
REQUESTS_FILE = "requests.csv"
SERVER_FILE = "server.csv"
HTML_FILE = "report.html"
RESULT_FILE = "result.json"
SERVER_COLUMNS = (
    *("at_s", "model", "requests", "rows", "executions", "queue_ms", "compute_ms"),
    *("server_cores", "server_bytes", "machine_cores_busy", "pending", "gpu"),
)
LEAST_SPAN_S = 0.1
"""Readings nearer to each other show mostly rounding."""


def write_report(result: LoadResult, course: Course, options: LoadOptions) -> LoadResult:
    """Write every file into the report folder; the result with their names."""
    folder = options.report
    _write_requests(folder / REQUESTS_FILE, course)
    _write_server(folder / SERVER_FILE, course)
    files = [folder / REQUESTS_FILE, folder / SERVER_FILE, *sorted(folder.glob("load_*.csv"))]
    named = replace(result, html=str(folder / HTML_FILE), csv=tuple(map(str, files)), json=str(folder / RESULT_FILE))
    write_text(folder / HTML_FILE, render_html(named, course.log(), course.sampler.readings))
    write_record(folder / RESULT_FILE, named)
    return named


def _write_requests(file: Path, course: Course) -> None:
    """Every request of the test, in seconds from its beginning; `arrival_s` makes it a trace for --replay."""
    import numpy as np

    with np.load(course.log_file) as stored:
        rows: NDArray[np.float64] = stored["rows"]
    began = {phase["number"]: float(phase["began_s"]) for phase in course.run["phases"]}
    names = course.run["models"]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["arrival_s", "sent_s", "ended_s", "latency_ms", "model", "rows", "outcome", "phase"])
        for due, _, sent, ended, model, size, outcome, phase in rows[np.lexsort((rows[:, 0], rows[:, -1]))].tolist():
            start = began[int(phase)]
            times = [f"{start + moment:.6f}" for moment in (due, sent, ended)]
            name = names[int(model)] if model >= 0 else ""
            writer.writerow(
                [*times, f"{1000 * (ended - due):.4f}", name, int(size), OUTCOMES[int(outcome)], int(phase)]
            )


def _write_server(file: Path, course: Course) -> None:
    """The readings: what happened between each and the one before."""
    readings = course.sampler.readings
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(SERVER_COLUMNS)
        for before, after in pairwise(readings):
            writer.writerows(_server_rows(readings[0].at_s, before, after))


def _server_rows(start: float, before: Reading, after: Reading) -> Iterable[list[Any]]:
    elapsed = max(1e-9, after.at_s - before.at_s)
    shared = [
        f"{(after.server.cpu_s - before.server.cpu_s) / elapsed:.3f}" if after.server.resident_bytes else "",
        after.server.resident_bytes or "",
        f"{(after.busy_s - before.busy_s) / elapsed:.3f}",
        "" if after.pending is None else f"{after.pending:g}",
        "" if after.gpu is None else f"{after.gpu:.3f}",
    ]
    for name, counts in after.models.items():
        earlier = before.models.get(name)
        if earlier is None or counts.requests == earlier.requests:
            continue
        requests = counts.requests - earlier.requests
        times = [(counts.queue_ns - earlier.queue_ns) / requests, (counts.compute_ns - earlier.compute_ns) / requests]
        numbers = [requests, counts.inferences - earlier.inferences, counts.executions - earlier.executions]
        yield [f"{after.at_s - start:.3f}", name, *numbers, *(f"{time / 1e6:.4f}" for time in times), *shared]


def render_html(result: LoadResult, log: Log, readings: Sequence[Reading]) -> str:
    """One file that needs nothing else."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(resource("templates") / "loadtest")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=True)
    return environment.get_template("report.html").render(
        title=f"Load test of {', '.join(result.models)}",
        subtitle=subtitle(result),
        cards=_cards(result),
        findings=result.diagnosis,
        plots=_plots(result, log, readings),
        tables=_tables(result),
        footer=f"build-repo {__version__}; latencies count from the planned arrival, warm-up is excluded",
    )


def subtitle(result: LoadResult) -> str:
    """The load in one line."""
    load = f"{result.rate:g} arrivals/s" if result.rate else f"{result.users} users"
    load = "a recorded trace" if result.arrivals == "replay" else load
    workers = f", {result.workers} workers" if result.workers > 1 else ""
    ended = f", ended early: {result.ended.splitlines()[0]}" if result.ended else ""
    return f"{result.protocol}, {load}, shape {result.shape}, {result.duration_s:.1f} s{workers}{ended}"


def _cards(result: LoadResult) -> list[dict[str, str]]:
    rows = [
        ("throughput", f"{result.requests_per_s:.1f}/s", f"{result.rows_per_s:.1f} rows/s"),
        ("p50", f"{result.p50_ms:.2f} ms", f"mean {result.mean_ms:.2f} ms"),
        ("p99", f"{result.p99_ms:.2f} ms", f"max {result.max_ms:.2f} ms"),
        ("failed", f"{result.failures}", f"of {result.requests + result.failures} ({result.error_percent:.2f} %)"),
        ("wrong answers", f"{result.answers.wrong}", f"{result.answers.compared} of {result.answers.seen} compared"),
        ("late starts", f"{result.late.late}", f"of {result.late.planned}, worst {result.late.worst_ms:.1f} ms"),
    ]
    if result.queue_ms is not None:
        queue = f"{result.queue_ms:.2f} ms queue, {result.compute_ms or 0:.2f} ms compute"
        rows.append(("rows a run", "-" if result.batch_mean is None else f"{result.batch_mean:.2f}", queue))
    if result.held_rate is not None:
        rows.insert(0, ("highest rate", f"{result.held_rate:.1f}/s", f"missed {result.missed_rate or 0:.1f}/s"))
    return [{"name": name, "value": value, "more": more} for name, value, more in rows]


def _plots(result: LoadResult, log: Log, readings: Sequence[Reading]) -> list[Plot]:
    windows = windows_of(log, PLOTTED)
    width = log.elapsed_s / PLOTTED
    over = [(window.start_s + width / 2, window) for window in windows]
    median, high = ([(at, getattr(window, name)) for at, window in over] for name in ("p50_ms", "p99_ms"))
    speed = [(at, window.requests_per_s) for at, window in over]
    plots = [
        line_plot("Latency (ms)", "seconds", [("p50", median), ("p99", high)]),
        line_plot("Answered (requests/s)", "seconds", [("answered", speed)]),
    ]
    plots += [
        bar_plot(f"Batch sizes of {model.name} (runs)", "rows", [(str(size), count) for size, count in model.batches])
        for model in result.model_figures
        if model.batches
    ]
    if len(readings) > 2:  # noqa: PLR2004 - two make one point
        plots += _machine_plots(readings)
    return plots


def _machine_plots(readings: Sequence[Reading]) -> list[Plot]:
    start = readings[0].at_s
    spans = [(one, two, two.at_s - one.at_s) for one, two in pairwise(readings) if two.at_s - one.at_s > LEAST_SPAN_S]
    busy = [(two.at_s - start, (two.busy_s - one.busy_s) / span) for one, two, span in spans]
    server = [
        (two.at_s - start, max(0.0, two.server.cpu_s - one.server.cpu_s) / span)
        for one, two, span in spans
        if two.server.resident_bytes
    ]
    memory = [
        (item.at_s - start, item.server.resident_bytes / 2**20) for item in readings if item.server.resident_bytes
    ]
    pending = [(item.at_s - start, item.pending) for item in readings]
    plots = [line_plot("CPU (cores)", "seconds", [("machine", busy), ("server", server)])]
    plots += [line_plot("Server memory (MiB)", "seconds", [("resident", memory)])] if memory else []
    waiting = any(value for _, value in pending)
    return plots + ([line_plot("Requests waiting in the server", "seconds", [("pending", pending)])] if waiting else [])


def _tables(result: LoadResult) -> list[dict[str, Any]]:
    head = ["model", "requests", "failed", "p50 ms", "p99 ms", "executions", "rows a run", "queue ms", "compute ms"]
    tables = [{"title": "Models", "head": head, "rows": [_row(model) for model in result.model_figures]}]
    if result.verdicts:
        asked = ["asked by", "what", "verdict", "seen", "limit", "of it noise"]
        rows = [_verdict_row(verdict) for verdict in result.verdicts]
        tables.insert(0, {"title": "What must hold", "head": asked, "rows": rows})
    if result.levels:
        rows = [
            [f"{level.rate:.1f}", _verdict(level.held, level.behind), _ms(level.p99_ms), f"{level.error_percent:.2f}"]
            for level in result.levels
        ]
        tables.append({"title": "Rates tried", "head": ["requests/s", "SLO", "p99 ms", "failed %"], "rows": rows})
    if result.failure_texts:
        tables.append({"title": "Failures", "head": ["what"], "rows": [[text] for text in result.failure_texts]})
    return tables


def _verdict(held: bool, behind: bool) -> str:
    return "held" if held else ("missed: fell behind" if behind else "missed")


def _verdict_row(verdict: Verdict) -> list[str]:
    more = verdict.quantity in ("rps", "rate")
    limit = f"at {'least' if more else 'most'} {verdict.limit:.4g} {verdict.unit}"
    noise = "-" if verdict.noise is None else f"{verdict.noise:.3g} {verdict.unit}"
    what = {"rps": "requests/s", "errors": "failed requests", "rate": "highest rate that holds"}
    told = [verdict.source.replace("slo", "SLO"), what.get(verdict.quantity, verdict.quantity)]
    return [*told, "pass" if verdict.held else "fail", f"{verdict.seen:.4g} {verdict.unit}", limit, noise]


def _row(model: ModelFigures) -> list[str]:
    mean = f"{model.rows / model.executions:.2f}" if model.executions and model.rows else "-"
    times = [f"{model.queue_ms:.2f}", f"{model.compute_ms:.2f}"] if model.served else ["-", "-"]
    counts = [str(model.requests), str(model.failures), _ms(model.p50_ms), _ms(model.p99_ms), str(model.executions)]
    return [model.name, *counts, mean, *times]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
