"""`build-repo loadtest`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder import defaults
from builder.cli.options import Engine, EngineOption, Image, ReadyTimeout, open_endpoint
from builder.cli.show import console, print_findings, print_json
from builder.errors import EXIT_INTERRUPTED, EXIT_OK, GateError, ServeError, SpecError

if TYPE_CHECKING:
    from builder.findings import Finding
    from builder.loadtest import LoadOptions, LoadResult, LoadSubject, Verdict
    from builder.servers import Endpoint

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Shape(StrEnum):
    """How a load goes on over time."""

    constant = "constant"
    ramp = "ramp"
    step = "step"
    spike = "spike"


class Arrivals(StrEnum):
    """How planned arrivals are spaced."""

    even = "even"
    poisson = "poisson"


@app.command()
def loadtest(
    repository: Path = typer.Argument(None, metavar="[REPO]", help="A repository; its samples are what is sent."),
    engine: EngineOption = Engine.embedded,
    image: Image = None,
    ready_timeout: ReadyTimeout = None,
    urls: list[str] = typer.Option([], "--url", help="http(s)://HOST:PORT or grpc(s)://HOST:PORT, once per protocol."),
    headers: list[str] = typer.Option([], "--header", help="NAME: VALUE sent with every request to --url."),
    ca_file: Path = typer.Option(None, help="Certificates that --url is checked against."),
    model: str = typer.Option(None, help="Only this model folder."),
    mix: list[str] = typer.Option([], help="NAME[@ROWS][=WEIGHT]: what is called and how often; instead of --model."),
    protocol: str = typer.Option(defaults.LOAD_PROTOCOL, help="grpc or http."),
    users: int = typer.Option(defaults.LOAD_USERS, min=1, help="Clients that each send as answers come."),
    rate: float = typer.Option(None, min=0.001, help="Arrivals per second, whatever the answers; instead of --users."),
    arrivals: Arrivals = typer.Option(Arrivals.even, help="How the arrivals of --rate are spaced."),
    replay: Path = typer.Option(None, help="A trace of arrival times: CSV, JSON, or the result.json of a test."),
    duration: str = typer.Option(None, help="For example 30s, 2m.  [default: 30s; 80s for --shape step]"),
    shape: Shape = typer.Option(Shape.constant, help="step finds the highest rate that holds the SLO."),
    workers: int = typer.Option(1, min=1, help="Processes that send; one can use one core."),
    timeout: str = typer.Option("30s", help="A request that takes longer has failed."),
    slo: str = typer.Option("", help="What must hold, for example p99=50ms,errors=0%,rps=100."),
    baseline: Path = typer.Option(None, help="result.json of an earlier test; slower beyond the noise is an error."),
    report: Path = typer.Option(Path("reports/loadtest"), help="Folder for the HTML, CSV and JSON reports."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Load-test served models with Locust, and say what limits them; the SLO decides the exit code."""
    from builder.loadtest import (
        baseline_verdicts,
        compare_baseline,
        judge_slo,
        parse_slo,
        read_baseline,
        run_load_test,
        slo_verdicts,
    )

    terms = parse_slo(slo)
    if model and mix:
        raise SpecError("--model and --mix both say what is called", remedy="leave --model out")
    options = _options(
        report=report, protocol=protocol, users=users, duration=duration, rate=rate, shape=shape, timeout=timeout,
        workers=workers, mix=mix, replay=replay, arrivals=arrivals, slo=slo,
    )  # fmt: skip
    earlier = read_baseline(baseline) if baseline is not None else None
    _make_folder(options.report)

    def judge(told: LoadResult) -> tuple[Verdict, ...]:
        return (*slo_verdicts(told, terms), *(baseline_verdicts(told, earlier) if earlier is not None else ()))

    try:
        with open_endpoint(repository, urls, headers, ca_file, engine, image, ready_timeout) as (endpoint, _):
            subjects = _subjects(repository, endpoint, _names(model, mix))
            result = run_load_test(endpoint, subjects, options, progress=_line, judge=judge)
    except KeyboardInterrupt as error:
        text = str(error) or "interrupted; no report was written"
        raise KeyboardInterrupt(text + _earlier_report(options.report)) from error
    findings = [
        *result.diagnosis,
        *judge_slo(result, terms),
        *(compare_baseline(result, earlier) if earlier is not None else ()),
    ]
    if as_json:
        print_json(_document(result, findings))
    else:
        told = result.diagnosis  # below the figures, in any case
        print_findings([finding for finding in findings if finding.severity == "error" or finding not in told])
        _print(result)
    raise typer.Exit(_exit_code(result, findings, asked=bool(terms) or baseline is not None))


def _options(**given: Any) -> LoadOptions:  # noqa: ANN401 - the command's own words
    """The words of the command line as what they mean.

    Raises:
        SpecError: a word has another form.
    """
    from builder.loadtest import LoadOptions, limits_of, parse_duration, parse_slo

    if given["protocol"] not in ("grpc", "http"):
        raise SpecError(f"--protocol {given['protocol']!r} is neither grpc nor http")
    usual = defaults.LOAD_SEARCH if given["shape"] == Shape.step else defaults.LOAD_DURATION
    return LoadOptions(
        report=given["report"].resolve(),
        protocol=given["protocol"],
        users=given["users"],
        duration_s=parse_duration(given["duration"] or usual),
        rate=given["rate"],
        shape=given["shape"].value,
        request_timeout_s=parse_duration(given["timeout"]),
        workers=given["workers"],
        mix=tuple(given["mix"]),
        replay=given["replay"],
        arrivals=given["arrivals"].value,
        limits=limits_of(parse_slo(given["slo"])),
    )


def _earlier_report(report: Path) -> str:
    """Whose the report is that lies in the folder; it may be a baseline, so it stays."""
    from builder.loadtest.report import HTML_FILE

    return f"; {report / HTML_FILE} is an earlier test's" if (report / HTML_FILE).is_file() else ""


def _make_folder(report: Path) -> None:
    """Before the test whose figures it will hold.

    Raises:
        SpecError: the folder cannot be made or written.
    """
    try:
        report.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(report, os.W_OK | os.X_OK) else "it cannot be written"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise SpecError(f"{report} cannot hold the report: {problem}", remedy="give another folder with --report")


def _line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _exit_code(result: LoadResult, findings: list[Finding], *, asked: bool) -> int:
    """Ended early: 130 or 5. A wrong answer, or a gate that was asked for: 3. Requests failed unasked: 5."""
    from builder.loadtest import INTERRUPTED

    if result.ended:
        return EXIT_INTERRUPTED if result.ended == INTERRUPTED else ServeError.exit_code
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return EXIT_OK
    wrong = any(finding.check.startswith("answers.") for finding in errors)
    return GateError.exit_code if asked or wrong else ServeError.exit_code


def _names(model: str | None, mix: list[str]) -> list[str]:
    """The models that are asked for; none: all."""
    return list(dict.fromkeys(part.partition("=")[0].partition("@")[0] for part in mix)) or ([model] if model else [])


def _subjects(repository: Path | None, endpoint: Endpoint, named: list[str]) -> list[LoadSubject]:
    """What is called: the folders of the repository with their samples, else what the server has."""
    from builder.check_repository import folders_of, gates_of_folder, requests_of, rows_proven
    from builder.loadtest import LoadSubject
    from builder.manifest import read_manifest
    from builder.measurement import served_signature
    from builder.triton_client import ready_models

    if repository is None:
        return [LoadSubject(name) for name in (named or ready_models(endpoint))]
    manifest = read_manifest(repository)
    ours = manifest.served_folders() if manifest else {}
    known = {**manifest.models, **manifest.ensembles} if manifest else {}
    chosen = [name for one in named for name in folders_of(repository, one)] or [
        name for name in folders_of(repository, None) if not known or name in known
    ]
    subjects = []
    for name in chosen:
        requests = requests_of(repository, name, manifest) or ()
        if name in ours:
            record, served = ours[name]
            signature = served_signature(record.signature, record.sequence)
            proven = manifest is not None and rows_proven(manifest, name)
            subjects.append(LoadSubject(name, requests, signature, gates_of_folder(record, served), proven))
        else:
            subjects.append(LoadSubject(name, requests))
    return subjects


def _document(result: LoadResult, findings: list[Finding]) -> dict[str, Any]:
    from builder.records import to_json

    return {**to_json(result), "findings": [to_json(finding) for finding in findings]}


def _print(result: LoadResult) -> None:
    from builder.loadtest.report import subtitle

    out = console()
    out.print(f"{', '.join(result.models)} over {subtitle(result)}", soft_wrap=True)
    for level in result.levels:
        verdict = "held" if level.held else "missed"
        p99 = "" if level.p99_ms is None else f", p99 {level.p99_ms:.2f} ms"
        out.print(f"  {level.rate:.1f} requests/s {verdict}{p99}")
    if result.held_rate:
        out.print(f"  highest rate that holds: [bold]{result.held_rate:.1f} requests/s[/bold]")
    out.print(
        f"  {result.requests} requests, {result.failures} failed: [bold]{result.requests_per_s:.1f} requests/s[/bold], "
        f"{result.rows_per_s:.1f} rows/s"
    )
    out.print(
        f"  p50 {result.p50_ms:.2f} ms, p90 {result.p90_ms:.2f}, p95 {result.p95_ms:.2f}, [bold]p99 {result.p99_ms:.2f}"
        f"[/bold], max {result.max_ms:.2f}"
    )
    _print_behind(result)
    for finding in result.diagnosis:
        remedy = f"; try: {finding.remedy}" if finding.remedy else ""
        out.print(f"  {finding.severity}: {finding.message}{remedy}", soft_wrap=True, markup=False)
    out.print(f"  report: {result.html}", soft_wrap=True)


def _print_behind(result: LoadResult) -> None:
    """What stands behind the latencies: late starts, the server's part, the machine's, the answers."""
    out, machine, answers = console(), result.machine, result.answers
    if result.arrivals != "closed":
        late = f"{result.late.late} of {result.late.planned} requests started late"
        out.print(f"  {late}, {result.late.generator} of them by the generator's fault")
    if result.queue_ms is not None:
        busy = f"{result.queue_ms:.2f} ms in the queue, {result.compute_ms or 0.0:.2f} ms computing"
        rows = "" if result.batch_mean is None else f"{result.batch_mean:.2f} rows a run, "
        out.print(f"  server: {rows}{busy}")
    server = "" if machine.server_cores is None else f", server {machine.server_cores:.2f}"
    used = f"load generator {result.generator_cores:.2f}{server}, all {machine.busy_cores:.2f}"
    out.print(f"  CPU: {used} of {result.machine_cores} cores")
    if answers.compared:
        compared = f"{answers.compared} of {answers.seen} compared with the reference"
        out.print(f"  answers: {compared}, {answers.wrong} wrong")
