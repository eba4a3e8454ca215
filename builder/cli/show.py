"""How results and progress look: live bars on a terminal, one line a step elsewhere, JSON when asked."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builder.findings import Finding
from builder.progress import Event, Progress

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {"error": "✗", "warning": "!", "info": "·"}
PIPE_COLUMNS = 160
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever the command's document is
    """One JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """A rich console; rich itself honours NO_COLOR. A pipe gets wide lines rather than wrapped ones."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    columns = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else int(columns) if columns.isdecimal() else PIPE_COLUMNS
    return Console(file=stream, highlight=False, width=width)


def human_size(size_bytes: int) -> str:
    """`9.4 MB`, `512 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def printable(text: str) -> str:
    """What names of files and tensors would make a terminal do, as escapes."""
    return _CONTROL.sub(lambda char: ascii(char[0])[1:-1], text)


def print_findings(findings: Iterable[Finding]) -> None:
    """Findings on stderr, each with the next thing to do."""
    from rich.markup import escape

    out = console(stderr=True)
    for finding in _merged(findings):
        subject = " ".join(part for part in (finding.model, finding.target) if part)
        colour = COLOURS[finding.severity]
        head = f"[{colour}]{MARKS[finding.severity]} {finding.severity}[/{colour}]"
        said = f"{subject}: {finding.message}" if subject else finding.message
        out.print(f"{head} {escape(printable(said))} [dim]\\[{finding.check}][/dim]", soft_wrap=True)
        if finding.remedy:
            out.print(f"    try: {escape(printable(finding.remedy))}", soft_wrap=True)


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """What several targets of a model have in common is said once."""
    targets: dict[Finding, list[str]] = {}
    for finding in findings:
        targets.setdefault(replace(finding, target=None), []).append(finding.target or "")
    return [
        replace(finding, target=", ".join(filter(None, dict.fromkeys(names)))) for finding, names in targets.items()
    ]


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A callback for events, drawn as the stream allows."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bars() as callback:
            yield callback
    else:
        yield _line


def _line(event: Event) -> None:
    words = {"start": "started", "done": "done", "cached": "cached", "failed": "FAILED", "note": ""}
    took = f" in {event.seconds:.1f} s" if event.seconds is not None else ""
    detail = f": {event.detail}" if event.detail else ""
    sys.stderr.write(f"{event.label}: {words[event.kind]}{took}{detail}\n".replace(": :", ":"))
    sys.stderr.flush()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TimeElapsedColumn())
    running: dict[str, TaskID] = {}
    lock = threading.Lock()
    with Bars(*columns, console=console(stderr=True), transient=False) as bars:

        def show(event: Event) -> None:
            with lock:
                _draw(bars, running, event)

        yield show


def _draw(bars: Any, running: dict[str, Any], event: Event) -> None:  # noqa: ANN401 - rich's Progress
    from rich.markup import escape

    label = escape(event.label)
    if event.kind == "start":
        running[event.label] = bars.add_task(label, total=None)
        return
    task = running.pop(event.label, None)
    if task is not None:
        bars.remove_task(task)
    took = f" [dim]{event.seconds:.1f} s[/dim]" if event.seconds is not None else ""
    detail = f" {escape(event.detail)}" if event.detail else ""
    marks = {"done": "[green]✓[/green]", "cached": "[dim]= cached[/dim]", "failed": "[red]✗[/red]", "note": "·"}
    mark = marks[event.kind]
    bars.console.print(f"{mark} {label}{took}{detail}", soft_wrap=True)
