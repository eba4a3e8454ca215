"""`build-repo plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from builder import defaults
from builder.cli.options import AsJson, Defer, Inputs, Models, Name, Samples, Serve, Strict, Targets, Triton, Tuning
from builder.cli.request import load_tuned_request
from builder.cli.show import console, print_findings, print_json

if TYPE_CHECKING:
    from builder.findings import Finding
    from builder.plan import Plan
    from builder.tuning_file import Applied
    from builder.work import Work

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def plan(
    models: Models,
    output: Path = typer.Option(Path(defaults.OUTPUT), "-o", "--output", help="The repository it is compared with."),
    targets: Targets = None,
    triton: Triton = None,
    name: Name = None,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    samples: Samples = None,
    serve: Serve = None,
    tuning: Tuning = None,
    strict: Strict = False,
    defer: Defer = False,
    as_json: AsJson = False,
) -> None:
    """What a build would do, what is cached, and why not; changes nothing."""
    from builder.cache import default_cache
    from builder.ensembles.members import find_members
    from builder.ensembles.planning import plan_ensembles
    from builder.manifest import read_manifest
    from builder.plan import make_plan
    from builder.records import to_json

    words = {"targets": targets, "triton": triton, "name": name, "samples": samples, "serve": serve}
    spec, tuned = load_tuned_request(models, tuning, inputs=inputs, **words)
    manifest = read_manifest(output) if output.is_dir() else None
    made = make_plan(spec, defer=defer, strict=strict)
    made = plan_ensembles(spec, made, find_members(made, spec.ensembles, output, manifest), output)
    cache = default_cache()
    document = {
        "triton": spec.triton,
        "cache": str(cache.root),
        "output": str(output.resolve()),
        "defaults": _defaults(),
        "models": [_model(model, cache, output) for model in made.models],
        "ensembles": [_ensemble(ensemble, cache) for ensemble in made.ensembles],
        "tuning": str(tuned.path) if tuned else None,
        "findings": [to_json(finding) for finding in _tuning_findings(made, tuned)],
    }
    if as_json:
        print_json(document)
    else:
        print_findings(_tuning_findings(made, tuned))
        _print(document)


def _tuning_findings(made: Plan, tuned: Applied | None) -> list[Finding]:
    from builder.tuning_file import changed_models
    from builder.work import work_key

    keys = {model.spec.name: work_key(model.export) for model in made.models}
    return [*tuned.findings, *changed_models(tuned, keys)] if tuned else []


def _defaults() -> dict[str, Any]:
    return {name.lower(): value for name, value in sorted(vars(defaults).items()) if name.isupper()}


def _model(model: Any, cache: Any, output: Path) -> dict[str, Any]:  # noqa: ANN401 - ModelPlan, Cache
    from builder.running import work_label
    from builder.work import work_key

    old = _old_works(output, model.spec.name)
    works = [_work(model.packages, work_label(model.packages), cache, old)] if model.packages else []
    works.append(_work(model.export, "export", cache, old))
    for target in model.targets:
        label = str(target.target)
        if target.deferred or target.missing:
            why = "deferred to a machine with the GPU" if target.deferred else f"cannot be built: {target.missing[0]}"
            works.append({"work": label, "key": work_key(target.convert), "cached": False, "why": why})
        works += [_work(work, work_label(work), cache, old.get(label, {})) for work in target.works]
    works += [
        _work(work, f"version {older.version} {work_label(work)}", cache, {})
        for older in model.older
        for work in older.works
    ]
    works = list({work["key"]: work for work in reversed(works)}.values())[::-1]
    return {"name": model.spec.name, "source": str(model.spec.source.path), "serve": model.spec.serve, "works": works}


def _ensemble(ensemble: Any, cache: Any) -> dict[str, Any]:  # noqa: ANN401 - EnsemblePlan, Cache
    from builder.running import work_label

    works = [_work(work, work_label(work), cache, {}) for work in ensemble.answers]
    members = [step.member for step in ensemble.spec.steps]
    return {"name": ensemble.spec.name, "members": members, "unproven": ensemble.unproven, "works": works}


def _work(work: Work, label: str, cache: Any, old: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    from builder.plan import changed_fields
    from builder.records import to_json
    from builder.work import portable, work_key

    key = work_key(work)
    cached = cache.has(work.kind, key)
    why = ""
    if not cached:
        before = old.get(work.kind)
        fields = list(changed_fields(before, portable(to_json(work)))) if before else []
        why = "; ".join(fields) or ("not in this cache" if before else "new")
    return {"work": label, "key": key, "cached": cached, "why": why}


def _old_works(output: Path, name: str) -> dict[str, Any]:
    """The work records of the last build of this model: the export's and, per target, its own."""
    from builder.manifest import read_manifest

    manifest = read_manifest(output) if output.is_dir() else None
    model = manifest.models.get(name) if manifest else None
    if model is None:
        return {}
    found: dict[str, Any] = {str(target.target): target.works for target in model.targets}
    first = next(iter(model.targets), None)
    return found | ({"export": first.works.get("export")} if first else {})


def _print(document: dict[str, Any]) -> None:
    from rich.markup import escape

    out = console()
    places = f"into {document['output']} (cache: {document['cache']})"
    out.print(f"for Triton {document['triton']}, {escape(places)}", soft_wrap=True)
    for model in document["models"]:
        out.print(
            f"[bold]{model['name']}[/bold] from {escape(model['source'])}, serve: {model['serve']}", soft_wrap=True
        )
        _print_works(out, model["works"])
    for ensemble in document["ensembles"]:
        out.print(f"[bold]{ensemble['name']}[/bold] is an ensemble of {', '.join(ensemble['members'])}", soft_wrap=True)
        if ensemble["unproven"]:
            out.print(f"  loaded only, its answers are not compared: {escape(ensemble['unproven'])}", soft_wrap=True)
        _print_works(out, ensemble["works"])
    values = ", ".join(f"{key} {_value(value)}" for key, value in document["defaults"].items())
    out.print(f"[dim]defaults: {escape(values)}[/dim]", soft_wrap=True)


def _value(value: Any) -> str:  # noqa: ANN401 - a default
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)


def _print_works(out: Any, works: list[dict[str, Any]]) -> None:  # noqa: ANN401 - rich's Console
    from rich.markup import escape

    for work in works:
        state = "[dim]cached[/dim]" if work["cached"] else f"[yellow]to do[/yellow] ({escape(work['why'])})"
        out.print(f"  {work['work']:32} {state}", soft_wrap=True)
