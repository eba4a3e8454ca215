"""What the words of one model say against each other, its targets or the release: found before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.problems import Problem
from builder.releases import get_release
from builder.spec import ModelSpec
from builder.spec_serving import ZERO, SequenceSpec
from builder.triton_config.overrides import OverrideError, check_overrides

NAMED_SINCE: Final = "24.05"
JOINING: Final = ("onnxruntime", "onnxruntime+tensorrt")
"""Backends that ragged batches are built for."""
ONLY_FOR: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("optimization", "graph"): ("onnxruntime", "onnxruntime+tensorrt"),
    ("optimization", "execution_accelerators"): ("onnxruntime", "onnxruntime+tensorrt"),
    ("optimization", "cuda"): ("tensorrt",),
    ("optimization", "priority"): ("tensorrt",),
    ("instance_group", "profile"): ("tensorrt",),
    ("instance_group", "secondary_devices"): ("tensorrt",),
    ("input", "is_shape_tensor"): ("tensorrt",),
    ("output", "is_shape_tensor"): ("tensorrt",),
    ("input", "is_non_linear_format_io"): ("tensorrt",),
    ("output", "is_non_linear_format_io"): ("tensorrt",),
}
"""Fields that some backends alone understand; the others ignore or refuse them."""


def conflicts(
    model: ModelSpec, targets: tuple[str, ...], release: str, folder: Path, where: tuple[str | int, ...]
) -> Iterator[Problem]:
    """Every contradiction of one model."""
    backends = {text.partition(":")[0] for text in targets}
    yield from _sequence_problems(model, folder, where)
    yield from _ragged_problems(model, backends, where)
    yield from _io_problems(model, backends, where)
    yield from _serving_problems(model, backends, where)
    yield from config_problems(model.config, backends, release, (*where, "config"))
    if model.configs and release < NAMED_SINCE:
        text = f"Triton {release} has no --model-config-name; it came with {NAMED_SINCE}"
        yield Problem((*where, "configs"), text, f'leave configs out, or build for triton: "{NAMED_SINCE}" or newer')
    for name, fields in model.configs.items():
        yield from config_problems(fields, backends, release, (*where, "configs", name))


def _io_problems(model: ModelSpec, backends: set[str], where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Ports are cast in the ONNX graph, between one request and its answer."""
    if model.io is None:
        return
    if model.sequence is not None or model.ragged is not None:
        word = "sequence" if model.sequence is not None else "ragged"
        yield Problem((*where, "io"), f"io does not go with {word}", "leave io out, or cast inside of the model")
    if others := sorted(backends & {"pytorch", "python"}):
        text = f"io is cast in the ONNX graph, which the {' and '.join(others)} backend does not run"
        yield Problem((*where, "io"), text, "leave io or those targets out, or cast inside of the model")


def _serving_problems(model: ModelSpec, backends: set[str], where: tuple[str | int, ...]) -> Iterator[Problem]:
    if model.response_cache and model.sequence is not None:
        yield Problem((*where, "response_cache"), "Triton keeps no answers of sequences; leave response_cache out")
    for index, group in enumerate(model.instances or ()):
        if group.profiles and "tensorrt" not in backends:
            text = f"optimisation profiles are TensorRT's, and the targets are {', '.join(sorted(backends))}"
            yield Problem(
                (*where, "instances", index, "profiles"), text, "leave profiles out, or add a tensorrt target"
            )
    if model.instances and all(group.passive for group in model.instances):
        yield Problem((*where, "instances"), "every group is passive, so no request would ever be answered")
    served = model.versions.serve if model.versions else "latest"
    yield from _version_problems(model, where)
    if "version_policy" in model.config and (served != "latest" or model.sources):
        yield Problem((*where, "config", "version_policy"), "decided by versions: {serve: …}", "leave one of them out")
    if model.checksums and "model_repository_agents" in model.config:
        text = "checksums: true writes the checksum agent; leave one of them out"
        yield Problem((*where, "config", "model_repository_agents"), text)


def _version_problems(model: ModelSpec, where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Policies that would serve nothing, or not what the spec lists."""
    if not model.sources:
        return
    newest, versions = max(model.sources), model.versions
    for number, source in model.sources.items():
        if source.format == "python" or source.path.suffix == ".py":
            yield Problem((*where, "sources", number), "a step in Python has one version", "write source: instead")
    if versions is None:
        return
    if "keep" in versions.model_fields_set:
        text = "with sources the repository holds exactly those versions; leave keep out"
        yield Problem((*where, "versions", "keep"), text)
    if isinstance(versions.serve, tuple):
        for number in sorted(set(versions.serve) - set(model.sources)):
            text = f"there is no version {number}; sources has {', '.join(map(str, sorted(model.sources)))}"
            yield Problem((*where, "versions", "serve"), text)
        if newest not in versions.serve:
            text = f"version {newest}, the newest, would be built and not served"
            yield Problem((*where, "versions", "serve"), text, f"add {newest}, or take it out of sources")


def config_problems(
    fields: Mapping[str, Any], backends: set[str], release: str, where: tuple[str | int, ...]
) -> Iterator[Problem]:
    """Fields of Triton's configuration that it, the release or the backends do not know."""
    if not fields:
        return
    try:
        get_release(release)
    except SpecError:
        return
    try:
        check_overrides(dict(fields), release)
    except OverrideError as error:
        yield Problem((*where, *error.path), error.reason, error.remedy)
        return
    for path, takers in ONLY_FOR.items():
        if not backends & set(takers):
            for found in _places(fields, path):
                text = f"only {' and '.join(takers)} use this field, and the targets are {', '.join(sorted(backends))}"
                yield Problem((*where, *found), text, f"leave it out, or add a target of {takers[0]}")


def _places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401 - whatever the YAML holds
    """Where in the written fields the path stands, through lists."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from ((index, *rest) for rest in _places(item, path))
    elif not path:
        yield ()
    elif isinstance(value, dict) and path[0] in value:
        yield from ((path[0], *rest) for rest in _places(value[path[0]], path[1:]))


def _ragged_problems(model: ModelSpec, backends: set[str], where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Words that cannot stand beside `ragged`, and what only it can say."""
    if model.ragged is None:
        # The python backend joins nothing, so nothing of the model depends on it.
        ragged = [*_places(model.config, ("input", "allow_ragged_batch"))] if backends != {"python"} else []
        for found in (*_places(model.config, ("batch_input",)), *_places(model.config, ("batch_output",)), *ragged):
            text = "the model is run and proven with what Triton fills in; say it as ragged: {inputs: …, filled: …}"
            yield Problem((*where, "config", *found), text)
        return
    for word in ("batch_input", "batch_output"):
        if word in model.config:
            yield Problem((*where, "config", word), "decided by ragged: {filled: …, outputs: …}", "leave it out")
    if model.sequence is not None:
        yield Problem((*where, "ragged"), "steps of sequences have one size each; leave ragged or sequence out")
    if model.batching is not None and model.batching.max_batch_size == 0:
        text = "ragged is about requests that share a batch, and this says that none do"
        yield Problem(
            (*where, "batching", "max_batch_size"), text, "leave it out, or write the most requests of a batch"
        )
    if not backends & set(JOINING):
        takers, asked = " and ".join(JOINING), ", ".join(sorted(backends))
        text = f"only {takers} take requests of unequal sizes, and the targets are {asked}"
        yield Problem((*where, "ragged"), text, "add the target onnxruntime:fp32")


def _sequence_problems(model: ModelSpec, folder: Path, where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Words that cannot stand beside `sequence`, and files that are not there."""
    sequence = model.sequence
    if sequence is None:
        if model.samples is not None and model.samples.sequence_id is not None:
            yield Problem((*where, "samples", "sequence_id"), "the model has no sequence: that these could be steps of")
        return
    here = (*where, "sequence")
    for index, state in enumerate(sequence.states):
        if state.initial != ZERO and not (folder / state.initial).is_file():
            text = f"{folder / state.initial}: no such file; write zero, or the path of an .npy file"
            yield Problem((*here, "states", index, "initial"), text)
        if state.growable and not any(group.kind == "gpu" for group in model.instances or ()):
            text = "memory that grows is the GPU's: every request would fail on a CPU; write instances: {kind: gpu}"
            yield Problem((*here, "states", index, "growable"), text)
    yield from _sequence_names(model, sequence, here)
    yield from _sequence_conflicts(model, sequence, where)


def _sequence_names(model: ModelSpec, sequence: SequenceSpec, here: tuple[str | int, ...]) -> Iterator[Problem]:
    """Where the spec lists inputs or outputs, those of the sequence are among them."""
    declared = [tensor.name for tensor in model.inputs]
    for name in (*(state.input for state in sequence.states), *sequence.controls.values()):
        if declared and name not in declared:
            yield Problem(here, f"{name!r} is not among the inputs {', '.join(declared)}")
    for state in sequence.states:
        if model.outputs and state.output not in model.outputs:
            yield Problem(here, f"{state.output!r} is not among the outputs {', '.join(model.outputs)}")


def _sequence_conflicts(model: ModelSpec, sequence: SequenceSpec, where: tuple[str | int, ...]) -> Iterator[Problem]:
    if model.warmup is not None and model.warmup.samples:
        text = "a warm-up request belongs to no sequence, so Triton gives it no state; leave warmup out"
        yield Problem((*where, "warmup"), text)
    if model.batching is not None and not model.batching.dynamic:
        text = "the sequence batcher takes the place of the dynamic one; to run sequences one by one: max_batch_size: 0"
        yield Problem((*where, "batching", "dynamic"), text)
    if model.batching is not None and model.batching.preferred and sequence.strategy == "direct":
        yield Problem((*where, "batching", "preferred"), "strategy direct has no preferred sizes; use oldest")
    if model.batching is not None and model.batching.preserve_ordering and sequence.strategy == "direct":
        yield Problem((*where, "batching", "preserve_ordering"), "strategy direct keeps each sequence's order anyway")
    if model.batching is not None and model.batching.queued:
        text = "queues and priorities belong to the dynamic batcher, and sequences have their own; leave them out"
        word = "queue" if model.batching.queue is not None else "priorities"
        yield Problem((*where, "batching", word), text)
    for word in ("dynamic_batching", "ensemble_scheduling"):
        if word in model.config:
            yield Problem((*where, "config", word), "a model has one scheduler, and sequence: asks for another one")
    given = model.config.get("sequence_batching")
    for word, name in (("state", "states"), ("control_input", "controls")):
        if isinstance(given, dict) and word in given:
            yield Problem((*where, "config", "sequence_batching", word), f"decided by sequence: {{{name}: …}}")
