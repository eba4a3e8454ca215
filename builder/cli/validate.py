"""`build-repo validate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder.cli.options import Triton, release_of
from builder.cli.show import console, print_findings, print_json
from builder.errors import EXIT_OK, GateError, SpecError

if TYPE_CHECKING:
    from builder.findings import Finding
    from builder.fixing import Fix

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
    cores: int = typer.Option(
        0, "--cores", min=0, metavar="N", help="CPU cores of that machine; this one's by default."
    ),
    origin: str | None = typer.Option(
        None, "--from", metavar="YY.MM", help="The release that it runs on now: adds what changes on the way."
    ),
    fix: bool = typer.Option(False, "--fix", help="Rewrite what has one right answer, and show the difference."),
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
    fixes = _fix(repository, release, gpus) if fix else ()
    findings = validate_repository(repository, release, gpus, cores or os.cpu_count() or 0)
    if origin:
        from builder.migration import migration_report

        findings += migration_report(repository, origin, release)
    _show_fixes(output_format, fixes, asked=fix)
    _write(output_format, _Judged(repository, release, findings, origin), fixes if fix else None)
    raise typer.Exit(GateError.exit_code if has_errors(findings) else EXIT_OK)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was judged, for which release, and coming from which."""

    repository: Path
    release: str
    findings: Sequence[Finding]
    origin: str | None


def _write(output_format: Format, judged: _Judged, fixes: Sequence[Fix] | None) -> None:
    if output_format is Format.json:
        document = {
            "repository": str(judged.repository.resolve()),
            "findings": [_document(item) for item in judged.findings],
        }
        more = {} if fixes is None else {"fixes": [{"file": item.file, "diff": item.diff} for item in fixes]}
        print_json(document | more)
    elif output_format is Format.sarif:
        from builder.sarif import sarif_document

        print_json(sarif_document(judged.findings))
    elif output_format is Format.junit:
        from builder.validate import junit_cases

        typer.echo(_junit(junit_cases(judged.repository, judged.findings)), nl=False)
    else:
        print_findings(judged.findings)
        _print_summary(judged)


def _fix(repository: Path, release: str, gpus: int) -> tuple[Fix, ...]:
    """What was rewritten."""
    from builder.fixing import plan_fixes, write_fixes

    fixes = plan_fixes(repository, release, gpus)
    write_fixes(repository, fixes)
    return fixes


def _show_fixes(output_format: Format, fixes: Sequence[Fix], *, asked: bool) -> None:
    """The differences: on stdout beside the text of the findings, else on stderr."""
    for item in fixes:
        typer.echo(item.diff, nl=False, err=output_format is not Format.text)
    if asked:
        done = (
            f"{len(fixes)} file{'s' * (len(fixes) != 1)} rewritten" if fixes else "nothing has exactly one right answer"
        )
        typer.echo(f"--fix: {done}; what is left stands below", err=True)


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


def _print_summary(judged: _Judged) -> None:
    from builder.validate import model_names

    counts = {word: sum(item.severity == word for item in judged.findings) for word in ("error", "warning", "info")}
    said = ", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count) or "no findings"
    models = len(model_names(judged.repository))
    way = f", coming from {judged.origin}" if judged.origin else ""
    what = f"{models} model{'s' * (models != 1)} judged for Triton {judged.release}{way}"
    console().print(f"{what}: {said}", soft_wrap=True)
