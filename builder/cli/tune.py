"""`build-repo tune`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder import defaults
from builder.cli.failures import json_on_failure
from builder.cli.options import AsJson, Inputs, Models, Name, Samples, Targets, Triton
from builder.cli.request import load_request
from builder.cli.show import console, print_findings, print_json, progress_display
from builder.errors import SpecError

if TYPE_CHECKING:
    from builder.loadtest.slo import SloTerm
    from builder.spec import RepoSpec
    from builder.tune import TuneOptions, TuneResult
    from builder.tuning_file import Tuning
    from builder.tuning_records import ObjectiveWord, Tried, TunedModel

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Goal(StrEnum):
    """What is looked for."""

    throughput = "throughput"
    latency = "latency"
    memory = "memory"


class Wire(StrEnum):
    """How requests travel."""

    grpc = "grpc"
    http = "http"


@app.command()
def tune(
    models: Models,
    budget: str = typer.Option(defaults.TUNE_BUDGET, help="For each model, once its targets are built."),
    objective: Goal = typer.Option(
        None,
        help="Most rows a second, least latency, or least memory; the spec's word, else throughput, when left out.",
    ),
    slo: str = typer.Option("", help="What must hold, for example p99=50ms."),
    output: Path = typer.Option(None, "-o", "--output", help="The tuning file; beside the spec when left out."),
    model: str = typer.Option(None, "--model", help="One model of the spec; all when left out."),
    users: int = typer.Option(None, min=1, help="Clients at a time: 8, and 1 for the latency, when left out."),
    rows: int = typer.Option(1, min=1, help="Rows of a request, where the model has a batch axis."),
    protocol: Wire = typer.Option(Wire.grpc, help="grpc or http."),
    targets: Targets = None,
    triton: Triton = None,
    name: Name = None,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    samples: Samples = None,
    jobs: int = typer.Option(defaults.JOBS, min=0, help="Works at once while targets are built."),
    as_json: AsJson = False,
) -> None:
    """Search target, batch, delay, instances and threads by measurement on the real server."""
    from builder.loadtest import limits_of, parse_duration, parse_slo
    from builder.tune import TuneOptions

    with json_on_failure(output) if as_json else nullcontext():
        spec = load_request(
            models, targets=targets, triton=triton, name=name, inputs=inputs, samples=samples, serve=None
        )
        word: ObjectiveWord = objective.value if objective else objective_word(spec, model)
        if slo and word == "memory":
            raise SpecError(
                "memory is measured without a load, so no SLO can be held",
                remedy="leave --slo out, or --objective throughput with it",
            )
        options = TuneOptions(
            objective=word,
            budget_s=parse_duration(budget),
            slo=limits_of(_checked(parse_slo(slo))) or (() if word == "memory" else slo_of(spec, model)),
            users=users,
            rows=rows,
            protocol=protocol.value,
            jobs=jobs,
            only=model,
        )
        file = _file(models, output)
        result = _run(spec, options, file)
    if as_json:
        print_json(_document(result, file))
    else:
        print_findings(result.findings)
        _print(result, file)
    raise typer.Exit(result.exit_code)


def objective_word(spec: RepoSpec, only: str | None) -> ObjectiveWord:
    """What the spec says that `best` means; throughput where it says nothing.

    Raises:
        SpecError: its models say different things, and one search looks for one.
    """
    said = {model.name: model.objective or "throughput" for model in spec.models if only in (None, model.name)}
    words = set(said.values())
    if len(words) > 1:
        listed = ", ".join(f"{name}: {word}" for name, word in said.items())
        raise SpecError(
            f"one search has one objective, and the spec has {listed}",
            remedy=f"tune them one by one with --model {next(iter(said))}, or all for one with --objective",
        )
    return words.pop() if words else "throughput"


def slo_of(spec: RepoSpec, only: str | None) -> tuple[tuple[str, float], ...]:
    """What the spec says that must hold; nothing where it says nothing.

    Raises:
        SpecError: its models say different things, and one search holds one SLO.
    """
    said = {model.name: model.slo.terms if model.slo else () for model in spec.models if only in (None, model.name)}
    if len(set(said.values())) > 1:
        raise SpecError(
            "one search holds one SLO, and the models of the spec have several",
            remedy=f"tune them one by one with --model {next(iter(said))}, or all for one with --slo p99=50ms",
        )
    return next(iter(said.values()), ())


def _checked(terms: tuple[SloTerm, ...]) -> tuple[SloTerm, ...]:
    """Terms that a measurement of some seconds can show."""
    for term in terms:
        if term.quantity not in ("p50", "p99"):
            raise SpecError(f"tune cannot hold {term.quantity}", remedy="give p50 or p99, for example --slo p99=50ms")
    return terms


def _file(models: list[Path], output: Path | None) -> Path:
    from builder.tuning_file import default_tuning_path

    file = output or default_tuning_path(models)
    if file is None:
        raise SpecError("several model files have no tuning file of their own", remedy="name one: -o FILE")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise SpecError(f"{file} cannot be written", remedy="name a file in a folder that is there: -o FILE")
    return file


def _run(spec: RepoSpec, options: TuneOptions, file: Path) -> TuneResult:
    """The search; its answer so far is in the file after every wave, so an interruption loses nothing."""
    from builder.tune import free_words
    from builder.tune import tune as run_tune
    from builder.tuning_file import write_tuning

    words: dict[str, Any] = {}
    measured: dict[str, TunedModel] = {}
    if file.is_file():
        before = _before(file)
        words = {name: _plain(said) for name, said in before.words.items()}
        measured = dict(before.measured)
    specs = {model.name: model for model in spec.models}

    def answer(found: TunedModel) -> None:
        words[found.name] = free_words(specs[found.name], found.chosen)
        measured[found.name] = found
        write_tuning(file, words, measured)

    with progress_display() as progress:
        try:
            return run_tune(spec, options, progress, answer)
        except KeyboardInterrupt:
            if measured:
                sys.stderr.write(f"interrupted; {file} holds the best so far, and the same command goes on from here\n")
            raise


def _before(file: Path) -> Tuning:
    """What the file holds, which stays for the models that are not tuned now."""
    from builder.tuning_file import read_tuning

    try:
        return read_tuning(file)
    except SpecError as error:
        # The file's own errors say to tune again, and here that is what was typed.
        raise SpecError(error.message, remedy=f"remove {file}, or write another file: -o FILE") from error


def _plain(said: Any) -> dict[str, Any]:  # noqa: ANN401 - TunedWords
    serve = {"serve": said.serve} if said.serve else {}
    return serve | {key: _listed(value) for key, value in said.said().items()}


def _listed(value: Any) -> Any:  # noqa: ANN401 - plain data of a spec
    """Tuples as YAML writes them."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def _document(result: TuneResult, file: Path) -> dict[str, Any]:
    from builder.records import to_json

    return {
        "tuning_file": str(file),
        "models": [to_json(model) for model in result.models],
        "findings": [to_json(finding) for finding in result.findings],
    }


def _print(result: TuneResult, file: Path) -> None:
    from rich.table import Table

    from builder.tuning_records import BETTER

    out = console()
    for model in result.models:
        unit = model.objective.unit
        table = Table(box=None, header_style="bold", pad_edge=False)
        users = ("users",) if model.fewer_users else ()
        for heading in (model.name, unit, "95 %", "predicted", *users, "p50 ms", "p99 ms", "rows a run", ""):
            table.add_column(heading, justify="left" if heading in (model.name, "") else "right")
        for row in model.tried:
            table.add_row(*_row(row, model))
        out.print(table)
        load = "up to " if model.fewer_users else ""
        load += f"{model.objective.users} user{'' if model.objective.users == 1 else 's'}"
        load += f", {model.objective.rows} rows a request" if model.objective.rows > 1 else ""
        spent = "measurement" if model.measurements == 1 else "measurements"
        out.print(
            f"{model.name}: [bold]{model.gain:.2f}[/bold] times "
            f"{BETTER[model.objective.word]} the default with {load}; "
            f"{model.measurements} {spent} of {model.space} settings in {model.seconds:.0f} s",
            soft_wrap=True,
        )
        for text in filter(None, (model.together, model.stopped, *model.notes)):
            out.print(f"  {text}", soft_wrap=True, markup=False, style="dim")
    if result.models:
        out.print(f"{file} written; the next build of the same spec takes it", soft_wrap=True, markup=False)


def _row(row: Tried, model: TunedModel) -> tuple[str, ...]:
    from builder.tune import describe

    marks = [word for word, one in (("default", model.default), ("← chosen", model.chosen)) if row.setting == one]
    runs = sum(count for _, count in row.point.batches)
    merged = sum(size * count for size, count in row.point.batches) / runs if runs else 0.0
    return (
        describe(row.setting),
        _number(row.value),
        "" if row.low == row.high else f"{_number(row.low)} to {_number(row.high)}",
        _number(row.predicted),
        *((str(row.point.users),) if model.fewer_users else ()),
        f"{row.point.p50_ms:.2f}",
        f"{row.point.p99_ms:.2f}",
        f"{merged:.2f}" if runs else "-",
        ", ".join([*marks, *([f"cannot be chosen: {row.refused}"] if row.refused else [])]),
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1e6 else f"{value / 1e6:.1f}M"  # noqa: PLR2004
