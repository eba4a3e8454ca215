"""`build-repo inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from builder.cli.show import console, human_size, print_json

if TYPE_CHECKING:
    from builder.inspection import Inspection

app = typer.Typer(rich_markup_mode=None, add_completion=False)
OPERATORS_SHOWN = 8


@app.command()
def inspect(
    model: Path = typer.Argument(..., metavar="MODEL", help="A model file or folder."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Format, inputs, outputs, dynamic axes, opset, operators, parameters, and which targets and releases take it."""
    from builder.inspection import inspect_model
    from builder.records import to_json

    found = inspect_model(model)
    if as_json:
        print_json(to_json(found))
    else:
        _print(found)


def _print(found: Inspection) -> None:
    from rich.markup import escape

    out = console()
    what = found.description
    count = f", {what.parameters:,} parameters" if what.parameters is not None else ""
    out.print(f"[bold]{escape(found.path)}[/bold]: {what.format}, {human_size(found.size_bytes)}{count}")
    if what.opset is not None:
        out.print(f"opset {what.opset}, IR version {what.ir_version}")
    if what.signature is None:
        out.print("inputs and outputs: the file does not tell; the spec or --input says them")
    else:
        for side, tensors in (("input", what.signature.inputs), ("output", what.signature.outputs)):
            for tensor in tensors:
                axes = ", ".join(str(tensor.shape[axis]) for axis in tensor.dynamic_axes)
                out.print(f"{side:7} {escape(tensor.describe())}" + (f"  (dynamic: {escape(axes)})" if axes else ""))
    if what.operators:
        most = sorted(what.operators.items(), key=lambda item: (-item[1], item[0]))
        more = f", {len(most) - OPERATORS_SHOWN} more" if len(most) > OPERATORS_SHOWN else ""
        shown = ", ".join(f"{name} x{number}" for name, number in most[:OPERATORS_SHOWN])
        out.print(f"operators: {escape(shown)}{more}", soft_wrap=True)
    width = max((len(target.backend) for target in found.targets), default=0)
    for target in found.targets:
        verdict = f"no: {target.refusal}" if target.refusal else f"yes ({', '.join(target.precisions)})"
        lack = f"; not on this machine: {target.missing}" if target.missing else ""
        out.print(f"target {target.backend:{width}} {escape(verdict + lack)}", soft_wrap=True)
    if found.releases is not None:
        span = f"{found.releases[0]} to {found.releases[-1]}" if found.releases else "none: the opset is too new"
        out.print(f"Triton releases that load it as it is: {span}")
    for note in what.notes:
        out.print(f"note: {escape(note)}", soft_wrap=True)
