"""Who a step may name: models and ensembles of the spec, and those that stand in the repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.completion import completed_config
from builder.machine import gpu_count
from builder.manifest import EnsembleRecord, Manifest, ModelRecord, ServedRecord
from builder.measurement import served_signature
from builder.native_rules import batch_size, sizes
from builder.plan import ModelPlan, Plan
from builder.scan import CONFIG_FILE, ModelDir, scan_repository
from builder.spec import EnsembleSpec
from builder.tensors import BY_TRITON, Signature, Tensor
from builder.triton_config.text import parse_config
from builder.work import EnsembleRef, StepRef, parse_target

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Members:
    """By the name of the folder. `stored` were made by an earlier build, `foreign` by somebody else."""

    models: Mapping[str, ModelPlan]
    ensembles: Mapping[str, EnsembleRef]
    stored: Mapping[str, tuple[ModelRecord, ServedRecord]] = field(default_factory=dict)
    foreign: Mapping[str, ModelDir] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that can be a member."""
        return (*self.models, *self.ensembles, *self.stored, *self.foreign)


def find_members(
    plan: Plan, ensembles: tuple[EnsembleSpec, ...], repository: Path, manifest: Manifest | None
) -> Members:
    """The members that this build makes come first; what it replaces is none."""
    models = dict(_folders(plan))
    refs = {ensemble.name: ensemble_ref(ensemble) for ensemble in ensembles}
    stored: dict[str, tuple[ModelRecord, ServedRecord]] = {}
    rebuilt = {model.spec.name for model in plan.models}
    for folder, (record, served) in (manifest.served_folders() if manifest else {}).items():
        if folder in refs or record.name in rebuilt or record.name in refs:
            continue
        if isinstance(record, EnsembleRecord):
            refs[folder] = stored_ref(record)
        else:
            stored[folder] = (record, served)
    taken = {*models, *refs, *stored, *(manifest.served_folders() if manifest else {})}
    scanned = scan_repository(repository) if ensembles and repository.is_dir() else ()
    foreign = {model.name: model for model in scanned if model.name not in taken and not model.name.startswith(".")}
    return Members(models, refs, stored, foreign)


def _folders(plan: Plan) -> Iterator[tuple[str, ModelPlan]]:
    for model in plan.models:
        yield model.spec.name, model
        if model.spec.serve == "all":
            for text in model.spec.targets or ():
                yield f"{model.spec.name}_{parse_target(text).suffix}", model


def ensemble_ref(ensemble: EnsembleSpec) -> EnsembleRef:
    """What of the spec decides the wiring."""
    steps = tuple(
        StepRef(step.member, step.wires, tuple(step.inputs.items()), tuple(step.outputs.items()))
        for step in ensemble.steps
    )
    return EnsembleRef(ensemble.name, steps, ensemble.inputs, ensemble.outputs)


def stored_ref(record: EnsembleRecord) -> EnsembleRef:
    """An ensemble of an earlier build, every tensor named."""
    steps = tuple(StepRef(step.member, (), step.inputs, step.outputs) for step in record.steps)
    sides = (record.signature.inputs, record.signature.outputs)
    inputs, outputs = (tuple(tensor.name for tensor in side) for side in sides)
    return EnsembleRef(record.name, steps, inputs, outputs)


def standing_signatures(members: Members) -> dict[str, Signature]:
    """What clients see of the models that stand in the repository."""
    found = {name: served_signature(record.signature, record.sequence) for name, (record, _) in members.stored.items()}
    for name, model in members.foreign.items():
        config = standing_config(model)
        if config is not None:
            found[name] = config_signature(config)
    return found


def standing_config(model: ModelDir) -> Json | None:
    """As the server would complete it; None where only its own code knows."""
    done = completed_config(model, gpus=gpu_count())
    return done.config if done.known and not model.problem else None


def read_config(folder: Path) -> Json:
    """A model folder's own configuration."""
    return parse_config((folder / CONFIG_FILE).read_text(encoding="utf-8"))


def config_signature(config: Json) -> Signature:
    """The full wire shapes that a configuration says."""
    batched = batch_size(config) > 0

    def tensors(side: str) -> tuple[Tensor, ...]:
        return tuple(_tensor(io, batched=batched) for io in config.get(side, ()))

    return Signature(tensors("input"), tensors("output"))


def _tensor(io: Json, *, batched: bool) -> Tensor:
    dims = [size if size >= 0 else f"{io['name']}_{axis}" for axis, size in enumerate(sizes(io.get("dims")))]
    dtype = BY_TRITON[io["data_type"]].numpy
    return Tensor(io["name"], dtype, ("batch", *dims) if batched else tuple(dims))
