"""`build-repo validate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder.cli.options import Triton, release_of
from builder.cli.show import console, print_findings, print_json
from builder.errors import EXIT_OK, GateError, SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.findings import Finding

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Format(StrEnum):
    """What the findings are written as."""

    text = "text"
    json = "json"
    sarif = "sarif"
    junit = "junit"


@app.command()
def validate(
    repository: Path = typer.Argument(..., metavar="REPO", help="Any Triton model repository."),
    triton: Triton = None,
    output_format: Format = typer.Option(Format.text, "--format", help="How the findings are written."),
    gpus: int = typer.Option(0, "--gpus", min=0, metavar="N", help="GPUs of the machine that serves; none by default."),
    completed: bool = typer.Option(False, "--completed", help="Print every configuration as the server completes it."),
) -> None:
    """Judge any Triton repository offline: what the server would refuse, and what it would load and serve wrongly."""
    from builder.findings import has_errors
    from builder.validate import validate_repository

    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder", remedy="give the folder that holds the model folders")
    release = triton or release_of(repository)
    if completed:
        _print_completed(repository, release, gpus)
        raise typer.Exit(EXIT_OK)
    findings = validate_repository(repository, release, gpus)
    _write(output_format, repository, release, findings)
    raise typer.Exit(GateError.exit_code if has_errors(findings) else EXIT_OK)


def _write(output_format: Format, repository: Path, release: str, findings: Sequence[Finding]) -> None:
    if output_format is Format.json:
        print_json({"repository": str(repository.resolve()), "findings": [_document(item) for item in findings]})
    elif output_format is Format.sarif:
        from builder.sarif import sarif_document

        print_json(sarif_document(findings))
    elif output_format is Format.junit:
        from builder.validate import junit_cases

        typer.echo(_junit(junit_cases(repository, findings)), nl=False)
    else:
        print_findings(findings)
        _print_summary(repository, release, findings)


def _print_completed(repository: Path, release: str, gpus: int) -> None:
    from builder.validate import completed_texts

    for name, note, text in completed_texts(repository, release, gpus):
        typer.echo(f"# {name}" + (f": {note}" if note else ""))
        typer.echo(text)


def _document(finding: Finding) -> dict[str, Any]:
    from builder.records import to_json

    data: dict[str, Any] = to_json(finding)
    data.pop("target", None)
    return data


def _junit(cases: Any) -> str:  # noqa: ANN401 - junit's cases, whose import would slow --help
    from builder.junit import junit_text

    return junit_text("build-repo validate", cases)


def _print_summary(repository: Path, release: str, findings: Sequence[Finding]) -> None:
    from builder.validate import model_names

    counts = {word: sum(item.severity == word for item in findings) for word in ("error", "warning", "info")}
    said = ", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count) or "no findings"
    models = len(model_names(repository))
    console().print(f"{models} model{'s' * (models != 1)} judged for Triton {release}: {said}", soft_wrap=True)
