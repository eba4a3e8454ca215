"""`build-repo check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder.cli.options import Engine, EngineOption, Image, ReadyTimeout, open_endpoint, refuse_place
from builder.cli.show import console, print_findings, print_json, progress_display
from builder.errors import EXIT_OK, GateError, SpecError

if TYPE_CHECKING:
    from builder.check_repository import ModelCheck

app = typer.Typer(rich_markup_mode=None, add_completion=False)
COLOURS = {"passed": "green", "failed": "red", "unchecked": "yellow"}


@app.command()
def check(
    repository: Path = typer.Argument(..., metavar="REPO", help="A repository that build-repo made."),
    engine: EngineOption = Engine.embedded,
    image: Image = None,
    ready_timeout: ReadyTimeout = None,
    urls: list[str] = typer.Option([], "--url", help="http(s)://HOST:PORT or grpc(s)://HOST:PORT, once per protocol."),
    headers: list[str] = typer.Option([], "--header", help="NAME: VALUE sent with every request to --url."),
    ca_file: Path = typer.Option(None, help="Certificates that --url is checked against."),
    model: str = typer.Option(None, help="Only this model folder."),
    junit: Path = typer.Option(None, help="Write the verdicts as JUnit XML."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Send the stored samples to the served models over HTTP and gRPC, and judge the answers by the gates."""
    from builder.check_repository import check_repository, folders_of

    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder", remedy="build-repo build MODEL -o REPO makes a repository")
    folders_of(repository, model)
    if junit is not None:
        refuse_place(junit, "--junit")
    with (
        progress_display() as progress,
        open_endpoint(repository, urls, headers, ca_file, engine, image, ready_timeout) as (endpoint, unchecked),
    ):
        checks = list(check_repository(repository, endpoint, unchecked, model, progress))
    if junit is not None:
        _write_junit(junit, checks)
    if as_json:
        print_json(_document(repository, checks))
    else:
        print_findings(finding for item in checks for finding in item.findings)
        _print_table(checks)
    raise typer.Exit(_exit_code(checks))


def _exit_code(checks: list[ModelCheck]) -> int:
    """A gate said no, or nothing was judged at all: neither is a success."""
    failed = any(item.status == "failed" for item in checks)
    return GateError.exit_code if failed or all(item.status == "unchecked" for item in checks) else EXIT_OK


def _write_junit(path: Path, checks: list[ModelCheck]) -> None:
    from builder.junit import Case, write_junit

    cases = [
        Case(
            item.folder,
            item.findings,
            item.result.seconds if item.result else 0.0,
            item.findings[0].message if item.status == "unchecked" else "",
        )
        for item in checks
    ]
    write_junit(path, "build-repo check", cases)


def _document(repository: Path, checks: list[ModelCheck]) -> dict[str, Any]:
    from builder.records import to_json

    models = [
        {
            "name": item.folder,
            "status": item.status,
            "result": to_json(item.result),
            "findings": [to_json(finding) for finding in item.findings],
        }
        for item in checks
    ]
    return {"repository": str(repository.resolve()), "models": models}


def _print_table(checks: list[ModelCheck]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "target", "protocols", "largest error", "executions/inferences", "verdict"):
        table.add_column(heading)
    for item in checks:
        table.add_row(item.folder, *_cells(item), f"[{COLOURS[item.status]}]{item.status}[/]")
    console().print(table)


def _cells(item: ModelCheck) -> tuple[str, str, str, str]:
    result = item.result
    if result is None:
        return "-", "-", "-", "-"
    worst = f"{result.worst.deviation:.1e} ({result.worst.described})" if result.worst else "0"
    merged = f"{result.executions}/{result.inferences}" if result.inferences else "-"
    return result.target or "-", "+".join(result.protocols), worst, merged
