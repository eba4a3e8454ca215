"""`build-repo doctor`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer

from builder.cli.show import console, print_json
from builder.defaults import RELEASE
from builder.errors import MachineError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing looked at. `needed`: without it the main job does not run here."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = False


@app.command()
def doctor(as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout.")) -> None:
    """What works on this machine, and the next thing to type for what does not."""
    rows = [*_embedded(), *_backends(), *_sources(), *_others()]
    if as_json:
        print_json({"checks": [asdict(row) for row in rows]})
    else:
        _print(rows)
    if any(row.needed and not row.ok for row in rows):
        raise typer.Exit(MachineError.exit_code)


def _embedded() -> Iterator[Row]:
    from builder import runtime

    for check in runtime.checks():
        yield Row(check.name, check.ok, check.detail, check.remedy)
    found = runtime.find(RELEASE)
    if found is None:
        remedy = f"build-repo runtime install --triton {RELEASE}"
        yield Row("embedded Triton", ok=False, detail=f"the runtime for {RELEASE} is not installed", remedy=remedy)
        return
    try:
        runtime.check_stub(found)
    except MachineError as error:
        yield Row("embedded Triton", ok=False, detail=error.message, remedy=error.remedy)
        return
    packages = found.record.packages
    names = ", ".join(f"{name} {packages[name]}" for name in ("onnxruntime", "openvino", "torch") if name in packages)
    yield Row("embedded Triton", ok=True, detail=f"server {found.record.server} for {RELEASE}: {names}")
    if "torch" not in packages:
        detail = "no torch in the runtime: models of the pytorch backend are not checked live"
        remedy = f"build-repo runtime install --triton {RELEASE} --with pytorch"
        yield Row("embedded pytorch", ok=False, detail=detail, remedy=remedy)


def _backends() -> Iterator[Row]:
    from builder.backends import BACKENDS, backend_module
    from builder.libraries import library_versions

    for word in BACKENDS:
        backend = backend_module(word)
        lack = backend.missing()
        versions = ", ".join(f"{name} {number}" for name, number in library_versions(backend.LIBRARIES).items())
        name = f"target {word}"
        if lack:
            yield Row(name, ok=False, detail=lack[0], remedy=lack[1], needed=word == "onnxruntime")
        else:
            yield Row(name, ok=True, detail=f"{', '.join(backend.GRAPHS)} with {versions}")


def _sources() -> Iterator[Row]:
    from builder.libraries import library_versions
    from builder.sources import SOURCES, source_module

    for word in SOURCES:
        versions = library_versions(source_module(word).LIBRARIES)
        absent = [name for name, number in versions.items() if number == "absent"]
        detail = ", ".join(f"{name} {number}" for name, number in versions.items() if number != "absent")
        if absent:
            remedy = "pip install 'build-repo[torch]'" if "torch" in absent else f"pip install {' '.join(absent)}"
            yield Row(f"source {word}", ok=False, detail=f"{', '.join(absent)} not installed", remedy=remedy)
        else:
            yield Row(f"source {word}", ok=True, detail=detail)


def _others() -> Iterator[Row]:
    from builder.cache import default_cache
    from builder.libraries import library_versions

    for name, library, extra in (("load test", "locust", "load"), ("report's page", "vl-convert-python", "report")):
        version = library_versions([library])[library]
        if version == "absent":
            remedy = f"pip install 'build-repo[{extra}]'"
            yield Row(name, ok=False, detail=f"{library} is not installed", remedy=remedy)
        else:
            yield Row(name, ok=True, detail=f"{library} {version}")
    yield _docker()
    root = default_cache().root
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    yield Row("cache", ok=free_gb > 1, detail=f"{root}, {free_gb:.0f} GB free", remedy="set BUILD_REPO_CACHE")


def _docker() -> Row:
    from builder.servers.docker_engine import engine_version

    try:
        return Row("docker", ok=True, detail=f"engine {engine_version()}: serve --engine docker")
    except MachineError as error:
        return Row("docker", ok=False, detail=error.message, remedy=error.remedy)


def _print(rows: list[Row]) -> None:
    from rich.markup import escape

    out = console()
    width = max(len(row.name) for row in rows)
    for row in rows:
        mark = "[green]✓[/green]" if row.ok else "[red]✗[/red]" if row.needed else "[yellow]-[/yellow]"
        out.print(f"{mark} {row.name:{width}} {escape(row.detail)}", soft_wrap=True)
        if not row.ok and row.remedy:
            out.print(f"    try: {escape(row.remedy)}", soft_wrap=True)
