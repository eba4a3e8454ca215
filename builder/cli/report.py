"""`build-repo report`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def report(
    repository: Path = typer.Argument(..., metavar="REPO", help="A repository that build-repo made."),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="A file that ends in .html, .md or .json."),
) -> None:
    """What is served and why, with every measurement behind it: a page that opens offline, Markdown, or JSON."""
    from builder.report import write_report

    facts = write_report(repository, output)
    sys.stderr.write(f"{facts.headline}\n")
    print(output)
