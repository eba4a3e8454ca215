"""`build-repo build`."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder import defaults
from builder.cli.failures import json_on_failure
from builder.cli.options import AsJson, Defer, Inputs, Models, Name, Samples, Serve, Strict, Targets, Triton, Tuning
from builder.cli.request import load_tuned_request
from builder.cli.show import console, human_size, print_findings, print_json, progress_display

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.assemble import Staged
    from builder.build import BuildResult
    from builder.ensemble_result import EnsembleResult
    from builder.judge import ModelState, TargetState
    from builder.measurement import Measurement, TransformReport

app = typer.Typer(rich_markup_mode=None, add_completion=False)


ALMOST_ALL = 0.995
"""A share that would be shown as 100 %."""


class CheckWord(StrEnum):
    """How a staged repository is checked."""

    live = "live"
    offline = "offline"
    none = "none"


@app.command()
def build(
    models: Models,
    output: Path = typer.Option(Path(defaults.OUTPUT), "-o", "--output", help="The repository to make or replace."),
    targets: Targets = None,
    triton: Triton = None,
    name: Name = None,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    samples: Samples = None,
    serve: Serve = None,
    tuning: Tuning = None,
    strict: Strict = False,
    prune: bool = typer.Option(False, "--prune", help="Remove models of ours that the spec no longer has."),
    check: CheckWord = typer.Option(None, help="Live where the embedded runtime is installed, else offline."),
    defer: Defer = False,
    jobs: int = typer.Option(defaults.JOBS, min=0, help="Works at once; 0 runs them in this process."),
    fail_fast: bool = typer.Option(False, "--fail-fast", help="Stop at the first failure."),
    as_json: AsJson = False,
) -> None:
    """Convert, measure, configure, check against a real Triton, and only then replace the repository."""
    with json_on_failure(output) if as_json else nullcontext():
        words = {"targets": targets, "triton": triton, "name": name, "samples": samples, "serve": serve}
        spec, tuned = load_tuned_request(models, tuning, inputs=inputs, **words)
        result = _build(spec, tuned, output, check, jobs, fail_fast, strict, prune, defer)
    if as_json:
        print_json(result_document(result))
    else:
        print_findings(_ordered(result))
        _print_table(result)
    raise typer.Exit(result.exit_code)


def _build(
    spec: Any,  # noqa: ANN401 - RepoSpec, whose import would slow --help
    tuned: Any,  # noqa: ANN401 - the same for Applied
    output: Path,
    check: CheckWord | None,
    jobs: int,
    fail_fast: bool,
    strict: bool,
    prune: bool,
    defer: bool,
) -> BuildResult:
    from builder.build import build as run_build
    from builder.settle import BuildOptions

    options = BuildOptions(
        output=output,
        check=check.value if check else None,
        jobs=jobs,
        fail_fast=fail_fast,
        strict=strict,
        prune=prune,
        defer=defer,
        command=shlex.join(["build-repo", *sys.argv[1:]]),
    )
    with progress_display() as progress:
        return run_build(spec, options, progress, tuned)


def result_document(result: BuildResult) -> dict[str, Any]:
    """The JSON of `build --json`, the same shape on every exit code."""
    from builder.records import to_json

    document = {
        "repository": str(result.repository),
        "models": [_model_document(result, state, version) for state in result.models for version in state.every],
        "findings": [to_json(finding) for finding in result.findings],
        "seconds": round(result.seconds, 3),
    }
    if result.ensembles:
        document["ensembles"] = [_ensemble_document(result, ensemble) for ensemble in result.ensembles]
    return document


def _ensemble_document(result: BuildResult, ensemble: EnsembleResult) -> dict[str, Any]:
    """`outputs` are the worst errors of the live check; null where nothing was compared."""
    from builder.records import to_json

    stands = result.exit_code == 0
    return {
        "name": ensemble.name,
        "version": 1 if stands else None,
        "status": ensemble.status,
        "members": list(ensemble.members),
        "max_batch_size": ensemble.max_batch_size,
        "signature": to_json(ensemble.signature),
        "gates": to_json(ensemble.gates),
        "outputs": to_json(ensemble.outputs) if ensemble.outputs else None,
    }


def _model_document(result: BuildResult, state: ModelState, version: ModelState) -> dict[str, Any]:
    staged = next((item for item in result.staged if item.record.folder == state.spec.name), None)
    stands = result.exit_code == 0 and staged is not None
    return {
        "name": state.spec.name,
        "version": (version.plan.version or staged.record.version) if stands and staged else None,
        "served": _target_words(staged.state) if stands and staged and _is_served(staged, version) else None,
        "tuned": _is_tuned(state, staged) if stands and staged else None,
        "choice": _choice(result, state) if stands else None,
        "targets": [_target_document(target) for target in version.targets],
    }


def _choice(result: BuildResult, state: ModelState) -> dict[str, Any] | None:
    """By what the served target was chosen; values by target."""
    from builder.choice import choice_of
    from builder.records import to_json

    choice = choice_of(state, result.tuning.get(state.spec.name))
    return {**to_json(choice), "values": dict(choice.values)} if choice else None


def _is_tuned(state: ModelState, staged: Staged) -> bool:
    """Whether a tuning file decided what is served, or how."""
    tuned = state.spec.tuned
    return bool(tuned.words) or str(staged.state.target) == tuned.target


def _is_served(staged: Staged, version: ModelState) -> bool:
    """Whether the version policy loads this version."""
    number = version.plan.version
    return number is None or number == staged.record.version or str(number) in staged.record.others


def _target_words(state: TargetState) -> dict[str, str]:
    return {"backend": state.target.backend, "precision": state.target.precision}


def _target_document(state: TargetState) -> dict[str, Any]:
    from builder.records import to_json

    return {
        **_target_words(state),
        "status": state.status,
        "seconds": round(state.seconds, 3),
        "size_bytes": state.converted.size_bytes if state.converted else None,
        "measurement": to_json(state.measurement),
        "prepare": to_json(state.prepared),
        "findings": [to_json(finding) for finding in state.findings],
    }


def _ordered(result: BuildResult) -> list[Any]:
    order = {"info": 0, "warning": 1, "error": 2}
    every = [*result.findings, *(f for state in result.models for target in state.targets for f in target.findings)]
    return sorted(dict.fromkeys(every), key=lambda finding: order[finding.severity])


def _print_table(result: BuildResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    from builder.judge import every_version

    table = Table(box=None, header_style="bold", pad_edge=False)
    metric = metric_name(result.models)
    for heading in ("model", "target", "size", "computes in", "latency", "error", *metric, "verdict"):
        table.add_column(
            heading, justify="left" if heading in ("model", "target", "computes in", "verdict") else "right"
        )
    served = {(item.model, item.state.target): item for item in result.staged} if result.exit_code == 0 else {}
    for state in every_version(result.models):
        name = state.spec.name if state.plan.version is None else f"{state.spec.name}:{state.plan.version}"
        for target in state.targets:
            item = served.get((state.spec.name, target.target))
            mark = " ← served" if item is not None and _is_served(item, state) else ""
            mark += ", tuned" if mark and item is not None and _is_tuned(state, item) else ""
            cells = (*target_cells(target), *(metric_cell(target) for _ in metric))
            table.add_row(name, str(target.target), *cells, _verdict(target) + mark)
    for ensemble in result.ensembles:
        worst = max((output.max_relative for output in ensemble.outputs), default=None)
        error = "-" if worst is None else f"{worst:.1e}"
        mark = " ← served" if result.exit_code == 0 else ""
        cells = ("-", "-", "-", error, *("-" for _ in metric))
        table.add_row(ensemble.name, "ensemble", *cells, _coloured(ensemble.status) + mark)
    out = console()
    out.print(table)
    for line in transform_lines(result.models):
        out.print(escape(line), soft_wrap=True, style="dim")
    where = escape(str(result.repository))
    kept = "is up to date" if not result.swapped else "written"
    if result.exit_code == 0:
        out.print(f"{where} {kept} in {result.seconds:.1f} s; next: build-repo serve {where}", soft_wrap=True)
    else:
        out.print(f"{where} was not changed", soft_wrap=True)


def transform_lines(models: Sequence[ModelState]) -> list[str]:
    """What became of each graph transform; targets for which the same ones were kept share a line, and its figures."""
    lines: dict[tuple[str, tuple[tuple[str, bool], ...]], tuple[str, list[str]]] = {}
    for state in models:
        for target in state.targets:
            tried = target.prepared.transforms if target.prepared else ()
            if tried:
                key = state.spec.name, tuple((report.name, report.kept) for report in tried)
                said = "; ".join(_transform(report) for report in tried)
                lines.setdefault(key, (said, []))[1].append(str(target.target))
    return [f"{model} graph for {', '.join(targets)}: {said}" for (model, _), (said, targets) in lines.items()]


def _transform(report: TransformReport) -> str:
    size = f"{report.nodes_before} → {report.nodes_after} nodes"
    if report.median_ms_before is not None and report.median_ms_after is not None:
        size += f", {report.median_ms_before:.2f} → {report.median_ms_after:.2f} ms"
    return f"{report.name} kept ({size})" if report.kept else f"{report.name} left out ({report.reason})"


def target_cells(target: TargetState) -> tuple[str, str, str, str]:
    """Size, types it computes in, latency and error of a target for a table."""
    size = human_size(target.converted.size_bytes) if target.converted else "-"
    if target.measurement is None:
        return size, "-", "-", "-"
    latency = f"{target.latency_ms:.2f} ms" if target.measurement.latency else "-"
    worst = max((output.max_relative for output in target.measurement.outputs), default=0.0)
    return size, _computes_in(target.measurement), latency, f"{worst:.1e}"


def metric_name(models: Sequence[ModelState]) -> tuple[str, ...]:
    """The heading of the task metric's column; none where no samples have labels."""
    measured = (target.measurement for state in models for target in state.targets)
    return tuple(dict.fromkeys(item.metric.name for item in measured if item and item.metric))


def metric_cell(target: TargetState) -> str:
    """`97.93 % (-0.03)`: the share of right answers, and by how many points it differs from the source's."""
    metric = target.measurement.metric if target.measurement else None
    if metric is None:
        return "-"
    return f"{100 * metric.target:.2f} % ({100 * (metric.target - metric.source):+.2f})"


def _computes_in(measurement: Measurement) -> str:
    """`int8 98 %`: the type of most of the heavy operators' work; where nothing is heavy, the library's own word."""
    if measurement.precision is None or not measurement.precision.compute:
        return measurement.compute.partition(",")[0]
    word, share = max(measurement.precision.compute, key=lambda item: item[1])
    return word if share > ALMOST_ALL else f"{word} {100 * share:.0f} %"


def _verdict(target: TargetState) -> str:
    return _coloured(target.status)


def _coloured(status: str) -> str:
    colours = {"built": "green", "cached": "green", "failed": "red", "rejected": "red", "deferred": "yellow"}
    return f"[{colours.get(status, 'yellow')}]{status}[/]"
