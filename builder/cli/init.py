"""`build-repo init`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from builder.errors import SpecError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def init(
    models: list[Path] = typer.Argument(..., metavar="MODEL", help="Model files or folders."),
    output: Path = typer.Option(Path("models.yaml"), "-o", "--output", help="The spec to write; - for stdout."),
    force: bool = typer.Option(False, "--force", help="Replace a spec that exists."),
) -> None:
    """Write a commented spec inferred from the files."""
    from builder.inspection import inspect_model
    from builder.records import write_text
    from builder.spec_draft import draft_spec, to_fill_in

    to_stdout = str(output) == "-"
    if not to_stdout and output.exists() and not force:
        raise SpecError(f"{output} exists", remedy="give another file with -o, or --force to replace it")
    folder = Path.cwd() if to_stdout else output.resolve().parent
    if not folder.is_dir():
        raise SpecError(f"{folder}: no such folder", remedy=f"mkdir -p {folder}")
    found = [inspect_model(path) for path in models]
    text = draft_spec(found, folder)
    if to_stdout:
        print(text, end="")
        return
    write_text(output, text)
    missing = ", ".join(to_fill_in(found))
    asked = f"fill in {missing}; " if missing else ""
    sys.stderr.write(f"wrote {output}; {asked}next: build-repo build {output}\n")
