"""`build-repo version`."""

from __future__ import annotations

import typer

from builder import __version__
from builder.cli.show import print_json
from builder.defaults import RELEASE
from builder.libraries import library_versions

app = typer.Typer(rich_markup_mode=None, add_completion=False)
LIBRARIES = ("onnx", "onnxruntime", "openvino", "torch", "tritonclient", "locust", "numpy", "protobuf")


@app.command()
def version(*, as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout.")) -> None:
    """Versions of build-repo and of the libraries it uses."""
    libraries = library_versions(LIBRARIES)
    if as_json:
        print_json({"build_repo": __version__, "triton": RELEASE, "libraries": libraries})
        return
    print(f"build-repo {__version__} (Triton {RELEASE} by default)")
    for name, number in libraries.items():
        print(f"  {name} {number}")
