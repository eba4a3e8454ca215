"""`build-repo diff`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder.cli.options import AsJson
from builder.cli.show import console, human_size, print_json
from builder.errors import EXIT_OK

if TYPE_CHECKING:
    from builder.diff import FigureChange, FileChange, ModelDiff, RepositoryDiff

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXIT_DIFFERENT = 1
"""As diff and git have it, with --exit-code; trouble is 2."""
COLOURS = {"added": "green", "removed": "red", "changed": "yellow", "equal": "dim"}
Row = tuple[str, str, str, str]


@app.command()
def diff(
    before: Path = typer.Argument(..., metavar="A", help="Any Triton model repository."),
    after: Path = typer.Argument(..., metavar="B", help="The one to compare it with."),
    model: str | None = typer.Option(None, help="This model folder only."),
    text: bool = typer.Option(False, "--text", help="Show the lines of config.pbtxt that differ, too."),
    exit_code: bool = typer.Option(False, "--exit-code", help="Exit 1 when something served differs."),
    as_json: AsJson = False,
) -> None:
    """Two repositories: models, files, configurations field by field, signatures, and what was measured."""
    from builder.diff import diff_repositories
    from builder.records import to_json

    found = diff_repositories(before, after, model)
    if as_json:
        print_json(to_json(found))
    else:
        _print(found, text=text)
    raise typer.Exit(EXIT_DIFFERENT if exit_code and not found.equal else EXIT_OK)


def _print(found: RepositoryDiff, *, text: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    for change in found.made:
        if change.path != "spec_digest":
            out.print(f"{change.path}: {change.before} → {change.after}", soft_wrap=True, markup=False)
    for model in found.models:
        if model.status == "equal" and not (model.figures or model.libraries):
            continue
        colour = COLOURS[model.status]
        out.print(f"[{colour}]{model.status} {escape(model.name)}[/{colour}]")
        rows = list(_rows(model))
        if rows:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=True)
            for heading in ("", "A", "B", "B / A"):
                table.add_column(heading, overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            out.print(table)
        for line in model.config_text if text else ():
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "default")
            out.print(f"[{colour}]{escape(line)}[/{colour}]", soft_wrap=True)
    out.print(_summary(found), markup=False)


def _rows(model: ModelDiff) -> Iterator[Row]:
    if model.served[0] != model.served[1] and model.status == "changed":
        yield "served", model.served[0] or "", model.served[1] or "", ""
    for word, numbers in (("removed", model.versions_removed), ("added", model.versions_added)):
        if numbers:
            listed = ", ".join(map(str, numbers))
            yield f"versions {word}", listed if word == "removed" else "", listed if word == "added" else "", ""
    yield from map(_file_row, model.files)
    for problem in model.config_problems:
        yield "config.pbtxt", problem, "", ""
    for change in model.config:
        yield f"config {change.path}", _value(change.before), _value(change.after), ""
    for line in model.signature:
        side = line.removeprefix("- ").removeprefix("+ ")
        yield "signature", "" if line.startswith("+") else side, side if line.startswith("+") else "", ""
    yield from map(_figure_row, model.figures)
    for change in model.libraries:
        yield f"library {change.path}", change.before or "", change.after or "", ""


def _file_row(change: FileChange) -> Row:
    sides = [
        f"{human_size(info.size_bytes)} {info.sha256[:8]}" if info else "" for info in (change.before, change.after)
    ]
    return f"file {change.path}", sides[0], sides[1], ""


def _figure_row(change: FigureChange) -> Row:
    sides = ["" if value is None else f"{value:.4g}" for value in (change.before, change.after)]
    if change.name.endswith("_bytes"):
        sides = ["" if value is None else human_size(int(value)) for value in (change.before, change.after)]
    name = change.name.removesuffix("_bytes").replace("_ms", " ms").replace("_", " ")
    return f"{change.target} {name}", sides[0], sides[1], f"{change.ratio:.2f}" if change.ratio is not None else ""


def _value(value: Any) -> str:  # noqa: ANN401 - a field of any type
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _summary(found: RepositoryDiff) -> str:
    counts = {word: sum(model.status == word for model in found.models) for word in COLOURS}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no models"
    return f"{said}; {'the same is served' if found.equal else 'they differ'}"
