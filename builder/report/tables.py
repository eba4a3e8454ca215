"""Facts as tables of text, the same on the page and in Markdown; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from builder.measurement import PrepareReport, TransformReport
from builder.report import words
from builder.report.charts import Table
from builder.report.records import EnsembleFacts, FolderFacts, ModelFacts, Provenance, TargetFacts
from builder.report.targets import best_tried
from builder.report.tuning_plots import settings_table
from builder.tuning_records import TunedModel

SHORT: Final = 12
"""Digits of a hash that a person compares."""


@dataclass(frozen=True, slots=True)
class Section:
    """Something to unfold: sentences, then tables."""

    key: str
    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    unfolded: bool = False


def targets_table(targets: Sequence[TargetFacts], tuning: TunedModel | None) -> Table:
    """Side by side; a column that would be empty is left out."""
    columns = [
        ("target", [target.target for target in targets]),
        ("one request", [words.milliseconds(target.latency_ms) for target in targets]),
        ("in process", [words.rate(target.rows_per_s) for target in targets]),
        ("served", [_served(target, tuning) for target in targets]),
        ("size", [words.size(target.size_bytes) for target in targets]),
        ("memory", [words.size(target.memory_bytes) for target in targets]),
        ("computes in", [_computes(target) for target in targets]),
        ("error", [words.percent(target.error) for target in targets]),
        (_metric_name(targets), [_metric(target) for target in targets]),
        ("verdict", [target.verdict for target in targets]),
    ]
    kept = [(head, cells) for head, cells in columns if head == "target" or set(cells) != {words.NOTHING}]
    return Table(tuple(head for head, _ in kept), tuple(zip(*(cells for _, cells in kept), strict=True)))


def _served(target: TargetFacts, tuning: TunedModel | None) -> str:
    best = best_tried(target.target, tuning) if tuning else None
    if tuning is None or best is None:
        return words.NOTHING
    return words.objective_value(best.value, tuning.objective) + (" (refused)" if best.refused else "")


def _computes(target: TargetFacts) -> str:
    """`int8`, and `int8 93 %` where something else takes part."""
    if target.precision and target.precision.compute:
        kind, share = max(target.precision.compute, key=lambda pair: pair[1])
        return kind if share > 0.995 else f"{kind} {words.percent(share)}"  # noqa: PLR2004 - would be shown as 100 %
    return target.compute.partition(",")[0] or words.NOTHING


def _metric_name(targets: Sequence[TargetFacts]) -> str:
    return next((words.metric(target.metric.name) for target in targets if target.metric), "metric")


def _metric(target: TargetFacts) -> str:
    return words.percent(target.metric.target) if target.metric else words.NOTHING


def sections(model: ModelFacts) -> tuple[Section, ...]:
    """What stands below the plots of a model, folded."""
    found = [*_tuning(model), *_graphs(model), *_versions(model), _gates(model), _made(model)]
    return tuple(section for section in found if section.tables or section.sentences)


def _tuning(model: ModelFacts) -> Iterator[Section]:
    tuning = model.tuning
    if tuning is None:
        return
    chosen, default = words.setting(tuning.chosen), words.setting(tuning.default)
    when = f", {tuning.measured_on}" if tuning.measured_on else ""
    told = (
        f"Chosen: {chosen}.",
        f"Default: {default}.",
        f"Holds for {words.machine(tuning.machine)}; Triton {tuning.triton}, measured on {tuning.server}{when}.",
        *tuning.notes,
    )
    yield Section("tuning", f"Settings tried: {len(tuning.tried)} of {tuning.space:,}", told, (settings_table(tuning),))


def _graphs(model: ModelFacts) -> Iterator[Section]:
    """The exported graph and what became of it; targets that share a graph are named together."""
    graphs: dict[tuple[str, str], list[TargetFacts]] = {}
    for target in model.targets:
        if target.prepare is not None:
            graphs.setdefault((target.prepare.precision, target.prepare.dialect), []).append(target)
    tables, said = [], []
    for (precision, dialect), targets in graphs.items():
        prepare = targets[0].prepare
        if prepare is None:
            continue
        name = f"{precision} graph for {words.listed([target.target for target in targets])}"
        said += [f"{name} ({dialect}): {sentence}" for sentence in _prepared(prepare)]
        tables += [transforms_table(prepare.transforms, name)] if prepare.transforms else []
        if prepare.kept_fp32:
            kept = tuple((node.name, node.operator, words.number(node.gain)) for node in prepare.kept_fp32)
            tables.append(Table((f"kept in fp32 in the {name}", "operator", "error falls by"), kept))
    if said:
        yield Section("optimisation", "Optimisation before and after", tuple(said), tuple(tables))


def _prepared(prepare: PrepareReport) -> Iterator[str]:
    kept = [item for item in prepare.transforms if item.kept]
    if prepare.transforms:
        nodes = f"{kept[0].nodes_before} → {kept[-1].nodes_after} nodes" if kept else "nothing changed"
        yield f"{len(kept)} of {words.count(len(prepare.transforms), 'transform')} kept, {nodes}."
    if (made := prepare.quantization) is not None:
        how = f" calibrated by {made.calibrator} on {words.count(made.rows, 'row')}" if made.calibrator else ""
        yield f"{made.mode} int8{how}, {words.count(made.quantized_nodes, 'node')} quantised."
    if prepare.kept_fp32:
        yield f"{words.count(len(prepare.kept_fp32), 'node')} kept in fp32 to meet the gates."
    if not prepare.transforms and made is None:
        yield "no transform found anything to do."


def transforms_table(transforms: Sequence[TransformReport], name: str) -> Table:
    """Each transform on its own: what it did, what it changed, and why it was kept or left out."""
    rows = tuple(
        (item.name, f"{item.nodes_before} → {item.nodes_after}",
         f"{words.size(item.bytes_before)} → {words.size(item.bytes_after)}",
         f"{words.milliseconds(item.median_ms_before)} → {words.milliseconds(item.median_ms_after)}",
         words.percent(item.max_relative), "kept" if item.kept else "left out", item.reason or words.NOTHING)
        for item in transforms
    )  # fmt: skip
    return Table((f"transform of the {name}", "nodes", "size", "one run", "outputs change by", "verdict", "why"), rows)


def _versions(model: ModelFacts) -> Iterator[Section]:
    for version in model.versions:
        told = (
            f"From {version.source_format}, {version.samples}; source sha256 {version.source_digest[:SHORT]}.",
            *version.notes,
        )
        table = targets_table(version.targets, None)
        yield Section(f"version-{version.version}", f"Version {version.version} of the spec", told, (table,))


def _gates(model: ModelFacts) -> Section:
    head = ("target", "largest error", "least cosine", "metric", "largest drop", "batches", "rows of a batch")
    rows = tuple(
        (target.target, words.percent(target.gates.get("max_relative_error")),
         str(target.gates.get("min_cosine", words.NOTHING)), str(target.gates.get("metric") or words.NOTHING),
         words.percent(target.gates.get("max_drop")), *_batching(target))
        for target in model.targets
    )  # fmt: skip
    folders = tuple(f"Live check of {folder.folder}: {folder.live}." for folder in model.folders)
    return Section("gates", "Gates and proofs", folders, (Table(head, rows),))


def _batching(target: TargetFacts) -> tuple[str, str]:
    if target.batch is None:
        return words.NOTHING, words.NOTHING
    sizes = ", ".join(map(str, target.batch.sizes)) or words.NOTHING
    return sizes, "equal to the rows alone" if target.batch.proven else target.batch.reason or "not proven"


def _made(model: ModelFacts) -> Section:
    told = (
        f"Source: {model.source_format}, exported by {model.route}; sha256 {model.source_digest}.",
        f"Signature: {model.signature}.",
        f"Samples: {model.samples}.",
        f"Export key {model.export_key}.",
        *model.notes,
    )
    keys = tuple(
        (target.target, target.convert_key, f"{target.build_seconds:.1f} s" if target.build_seconds else words.NOTHING,
         ", ".join(f"{name} {version}" for name, version in target.libraries.items()))
        for target in model.targets
    )  # fmt: skip
    tables = (*map(files_table, model.folders), Table(("target", "key of the artefact", "built in", "libraries"), keys))
    return Section("provenance", "Provenance: hashes and versions", told, tables)


def files_table(folder: FolderFacts) -> Table:
    """Every file that is served, and whether it is still the one that was checked."""
    rows = tuple(
        (name, digest, "changed" if name in folder.changed else "as built") for name, digest in folder.files.items()
    )
    others = f", also {', '.join(folder.other_versions)}" if folder.other_versions else ""
    return Table((f"file of {folder.folder}, version {folder.version}{others}", "sha256", "now"), rows)


def ensemble_sections(ensemble: EnsembleFacts) -> tuple[Section, ...]:
    """Steps, proof and provenance of an ensemble."""
    steps = tuple(
        (step.member, str(step.version or "newest"), ", ".join(step.inputs), ", ".join(step.outputs))
        for step in ensemble.steps
    )
    told = (f"Signature: {ensemble.signature}.", f"Samples: {ensemble.samples}.")
    proof = (*(f"Right answers of {item}." for item in ensemble.reference), *ensemble.notes)
    live = tuple(f"Live check of {folder.folder}: {folder.live}." for folder in ensemble.folders)
    return (
        Section(
            "steps", "Steps and wires", told, (Table(("step", "version", "inputs", "outputs"), steps),), unfolded=True
        ),
        Section("provenance", "Proof and provenance", (*proof, *live), tuple(map(files_table, ensemble.folders))),
    )


def libraries_table(provenance: Provenance) -> Table:
    """What took part in conversion and measurement."""
    rows = tuple((name, ", ".join(versions)) for name, versions in provenance.libraries.items())
    return Table(("library", "version"), rows)


def machines(provenance: Provenance) -> tuple[str, ...]:
    """`AMD EPYC, 2 cores, with AVX2, AVX-512`."""
    return tuple(map(words.machine, provenance.machines))
