"""`build-repo runtime install|list|remove`."""

from __future__ import annotations

import sys
from typing import Any

import typer

from builder.cli.show import print_json
from builder.defaults import RELEASE

app = typer.Typer(
    rich_markup_mode=None, add_completion=False, no_args_is_help=True, help="The embedded server's own environment."
)


@app.command("install")
def install(
    triton: str = typer.Option(RELEASE, help="The Triton release whose libraries it holds, as YY.MM."),
    backends: list[str] = typer.Option(
        [], "--with", metavar="BACKEND", help="A backend to add: pytorch (about 750 MB, for the CPU)."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Make the runtime of a release: the real tritonserver with that release's onnxruntime and openvino."""
    from builder import runtime

    made = runtime.install(triton, progress=_say, backends=backends)
    if as_json:
        print_json(_document(made))
    else:
        print(_line(made))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@app.command("list")
def list_all(as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout.")) -> None:
    """The installed runtimes."""
    from builder import runtime

    found = runtime.list_runtimes()
    if as_json:
        print_json({"runtimes": [_document(item) for item in found]})
        return
    for item in found:
        print(_line(item))
    if not found:
        sys.stderr.write(f"no runtime is installed\n  try: build-repo runtime install --triton {RELEASE}\n")


@app.command("remove")
def remove(triton: str = typer.Option(RELEASE, help="The Triton release, as YY.MM.")) -> None:
    """Delete the runtime of a release."""
    from builder import runtime

    gone = runtime.remove(triton)
    print(f"runtime {triton} {'removed' if gone else 'was not installed'}")


def _document(item: Any) -> dict[str, Any]:  # noqa: ANN401 - Runtime
    from builder.records import to_json

    return {"folder": str(item.folder), **to_json(item.record)}


def _line(item: Any) -> str:  # noqa: ANN401
    packages = item.record.packages
    libraries = ", ".join(
        f"{name} {packages[name]}" for name in ("onnxruntime", "openvino", "torch") if name in packages
    )
    notes = f" ({'; '.join(item.record.notes)})" if item.record.notes else ""
    return f"{item.release}: tritonserver {item.record.server}, {libraries}, Python {item.record.python}{notes}"
