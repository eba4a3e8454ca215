"""`build-repo loadtest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder import defaults
from builder.cli.options import Engine, EngineOption, Image, open_endpoint
from builder.cli.show import console, print_findings, print_json
from builder.errors import EXIT_OK, GateError, ServeError, SpecError

if TYPE_CHECKING:
    from builder.findings import Finding
    from builder.loadtest import LoadResult, LoadSubject
    from builder.servers import Endpoint

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def loadtest(
    repository: Path = typer.Argument(None, metavar="[REPO]", help="A repository; its samples are what is sent."),
    engine: EngineOption = Engine.embedded,
    image: Image = None,
    urls: list[str] = typer.Option([], "--url", help="http(s)://HOST:PORT or grpc(s)://HOST:PORT, once per protocol."),
    headers: list[str] = typer.Option([], "--header", help="NAME: VALUE sent with every request to --url."),
    ca_file: Path = typer.Option(None, help="Certificates that --url is checked against."),
    model: str = typer.Option(None, help="Only this model folder."),
    protocol: str = typer.Option(defaults.LOAD_PROTOCOL, help="grpc or http."),
    users: int = typer.Option(defaults.LOAD_USERS, min=1, help="Clients that each send as answers come."),
    rate: float = typer.Option(None, min=0.001, help="Arrivals per second, whatever the answers; instead of --users."),
    duration: str = typer.Option(defaults.LOAD_DURATION, help="For example 30s, 2m."),
    shape: str = typer.Option("constant", help="How the load goes on over time: constant."),
    slo: str = typer.Option("", help="What must hold, for example p99=50ms,errors=0%,rps=100."),
    baseline: Path = typer.Option(None, help="result.json of an earlier test; 10 % worse is an error."),
    report: Path = typer.Option(Path("reports/loadtest"), help="Folder for the HTML, CSV and JSON reports."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Load-test served models with Locust; the SLO decides the exit code."""
    from builder.loadtest import LoadOptions, compare_baseline, judge_slo, parse_duration, parse_slo, run_load_test

    if protocol not in ("grpc", "http"):
        raise SpecError(f"--protocol {protocol!r} is neither grpc nor http")
    terms = parse_slo(slo)
    options = LoadOptions(
        report=report.resolve(),
        protocol="grpc" if protocol == "grpc" else "http",
        users=users,
        duration_s=parse_duration(duration),
        rate=rate,
        shape=shape,
    )
    with open_endpoint(repository, urls, headers, ca_file, engine, image) as (endpoint, _):
        subjects = _subjects(repository, endpoint, model)
        result = run_load_test(endpoint, subjects, options, progress=_line)
    findings = [*judge_slo(result, terms), *(compare_baseline(result, baseline) if baseline is not None else ())]
    if as_json:
        print_json(_document(result, findings))
    else:
        print_findings(findings)
        _print(result)
    raise typer.Exit(_exit_code(findings, asked=bool(terms) or baseline is not None))


def _line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _exit_code(findings: list[Finding], *, asked: bool) -> int:
    """A gate that was asked for says no: 3. Nobody asked, and requests failed all the same: the test failed, 5."""
    if not any(finding.severity == "error" for finding in findings):
        return EXIT_OK
    return GateError.exit_code if asked else ServeError.exit_code


def _subjects(repository: Path | None, endpoint: Endpoint, model: str | None) -> list[LoadSubject]:
    """What is called: the folders of the repository with their samples, else what the server has."""
    from builder.check_repository import folders_of, requests_of
    from builder.loadtest import LoadSubject
    from builder.manifest import read_manifest
    from builder.triton_client import ready_models

    if repository is None:
        return [LoadSubject(name) for name in ([model] if model else ready_models(endpoint))]
    manifest = read_manifest(repository)
    ours = {**manifest.models, **manifest.ensembles} if manifest else {}
    names = [name for name in folders_of(repository, model) if model or not ours or name in ours]
    return [LoadSubject(name, requests_of(repository, name, manifest) or ()) for name in names]


def _document(result: LoadResult, findings: list[Finding]) -> dict[str, Any]:
    from builder.records import to_json

    return {**to_json(result), "findings": [to_json(finding) for finding in findings]}


def _print(result: LoadResult) -> None:
    out = console()
    load = f"{result.rate:g} arrivals/s" if result.rate else f"{result.users} users"
    out.print(f"{', '.join(result.models)} over {result.protocol}, {load}, {result.duration_s:.0f} s")
    out.print(
        f"  {result.requests} requests, {result.failures} failed: [bold]{result.requests_per_s:.1f} requests/s[/bold], "
        f"{result.rows_per_s:.1f} rows/s"
    )
    out.print(
        f"  p50 {result.p50_ms:.2f} ms, p90 {result.p90_ms:.2f}, p95 {result.p95_ms:.2f}, [bold]p99 {result.p99_ms:.2f}"
        f"[/bold], max {result.max_ms:.2f}"
    )
    if result.batch_mean is not None:
        queue, compute = result.queue_ms or 0.0, result.compute_ms or 0.0
        busy = f"{queue:.2f} ms in the queue, {compute:.2f} ms computing"
        out.print(f"  server: {result.batch_mean:.2f} rows a run, {busy}")
    out.print(f"  load generator: {result.generator_cores:.2f} of {result.machine_cores} cores")
    for note in result.notes:
        out.print(f"  note: {note}", soft_wrap=True)
    out.print(f"  report: {result.html}", soft_wrap=True)
