"""What of an earlier build stays: models and ensembles that this one does not name, and members that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from builder.ensembles.members import Members
from builder.findings import Finding
from builder.manifest import EnsembleRecord, Manifest, ModelRecord, TargetTimings
from builder.plan import Plan
from builder.tuning_records import Raced, TunedModel


@dataclass(frozen=True, slots=True)
class Kept:
    """By their names; `needed` are those that only stay because an ensemble of this build needs them."""

    models: Mapping[str, ModelRecord] = field(default_factory=dict)
    ensembles: Mapping[str, EnsembleRecord] = field(default_factory=dict)
    timings: Mapping[str, dict[str, TargetTimings]] = field(default_factory=dict)
    needed: tuple[tuple[str, str], ...] = ()
    tuning: Mapping[str, TunedModel] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    raced: Mapping[str, Raced] = field(default_factory=dict)

    @property
    def folders(self) -> frozenset[str]:
        """Their folders."""
        every: tuple[ModelRecord | EnsembleRecord, ...] = (*self.models.values(), *self.ensembles.values())
        return frozenset(served.folder for record in every for served in record.served)


def find_kept(manifest: Manifest | None, plan: Plan, members: Members, *, prune: bool) -> Kept:
    """Everything that the plan does not name; with `prune` only what its ensembles need."""
    if manifest is None:
        return Kept()
    named = {model.spec.name for model in plan.models} | {item.spec.name for item in plan.ensembles}
    needed = dict(_needed(plan, members))
    models = {
        name: record
        for name, record in manifest.models.items()
        if name not in named and (not prune or any(served.folder in needed for served in record.served))
    }
    ensembles = {
        name: record
        for name, record in manifest.ensembles.items()
        if name not in named and (not prune or name in needed)
    }
    timings = {name: value for name, value in manifest.run.timings.items() if name.partition(":")[0] in models}
    reasons = {served.folder: name for name, record in models.items() for served in record.served}
    reasons |= {name: name for name in ensembles}
    pairs = {reasons[folder]: why for folder, why in needed.items() if folder in reasons} if prune else {}
    tuning = {name: value for name, value in manifest.run.tuning.items() if name in models}
    stays = {*models, *ensembles, *reasons}
    findings = tuple(finding for finding in manifest.run.findings if finding.model in stays)
    raced = {name: value for name, value in manifest.run.raced.items() if name in models}
    return Kept(models, ensembles, timings, tuple(sorted(pairs.items())), tuning, findings, raced)


def _needed(plan: Plan, members: Members) -> Iterator[tuple[str, str]]:
    """(folder, ensemble) of everything that stands and is used."""
    for item in plan.ensembles:
        for name in (*item.members, *(ref.name for ref in item.inside)):
            if name not in members.models:
                yield name, item.spec.name


def kept_findings(kept: Kept, manifest: Manifest | None, release: str) -> Iterator[Finding]:
    """Models of an earlier build for another release, and those that --prune would have removed: that is said."""
    names = sorted((*kept.models, *kept.ensembles))
    if names and manifest is not None and manifest.triton != release:
        yield Finding(
            "warning",
            "repository.release",
            f"{', '.join(names)}: built for Triton {manifest.triton}, and this build is for {release}",
            f"build them again with --triton {release}, or remove them with --prune",
        )
    for name, ensemble in kept.needed:
        text = f"stays although the spec no longer has it: the ensemble {ensemble} needs it"
        yield Finding("info", "repository.needed", text, f"take it out of {ensemble} to remove it", model=name)
