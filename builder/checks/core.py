"""The server's own rules beside those of `native_rules`: backends, schedulers, batch inputs, agents.

Read from `model_config_utils.cc` and asked of the real server, whose words these are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.findings import Finding
from builder.model_libraries import Problem, backends_of, batch_strategy_problems, library_problems
from builder.native_rules import SIDES, sizes
from builder.scan import BY_FILE, PLATFORMS, ModelDir, backend_of, default_filename, line_of, scan_repository

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]

PLATFORM_OF: Final = {
    "tensorrt": ("tensorrt_plan",), "onnxruntime": ("onnxruntime_onnx",),
    "pytorch": ("pytorch_libtorch", "libtorch", "torch_aoti"),
    "tensorflow": ("tensorflow_savedmodel", "tensorflow_graphdef"),
}  # fmt: skip
"""Backends whose platform the server fills in, or checks where it is said; others take any."""
OF_OLD_SERVERS: Final = {
    "caffe2_netdef": (
        "Triton serves no Caffe2 model any more: export the network to ONNX from the framework that it was trained in, "
        "then build-repo build MODEL.onnx"
    ),
    "custom": (
        "custom backends of the first Triton are gone: write the code as a python model (model.py), or compile it for "
        "the backend API (tritonbackend.h) and name it with backend"
    ),
}
"""Platforms that servers of long ago took, and what to do with such a model."""
SAYS_THE_BACKEND: Final = tuple(name for name, backend in BY_FILE if backend != "tensorflow")
"""File names from which the server concludes a backend, also for an ensemble."""
AGENTS: Final = ("checksum",)
"""Repository agents that the container brings."""
LARGEST_STATE: Final = 2**36
"""Bytes of a first state, about; the server makes it when it loads the model."""
MOST_SEQUENCES: Final = 2**28
"""Places for sequences, which the server makes when it loads the model; ten millions are fine."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the server refuses of a configuration before a backend sees it."""
    for model in scan_repository(repository):
        if model.problem or (model.config is None and not context.auto_complete):
            continue
        for word, message, remedy in problems(model, context.release):
            line = line_of(model, word) if word else None
            yield Finding(
                "error", "core", message, remedy, model=model.name, file=model.config_file, line=line
            )  # fmt: skip
        yield from _agents(model)


def problems(model: ModelDir, release: str) -> Iterator[Problem]:
    """Every rule in turn."""
    config = {"name": model.name, **(model.config or {})}
    yield from _backend(model, config, release)
    if "ensemble_scheduling" not in config:
        yield from _priorities(config)
        yield from _cache(config)
        yield from _controls(config)
        yield from batch_strategy_problems(model, config)
    yield from _batch_io(config)
    yield from _metrics(config)
    yield from _crashes(config)


def _backend(model: ModelDir, config: Json, release: str) -> Iterator[Problem]:
    backend, platform, name = config.get("backend", ""), config.get("platform", ""), model.name
    ensemble = "ensemble_scheduling" in config
    if platform == "ensemble":
        if backend or config.get("default_model_filename") in SAYS_THE_BACKEND:
            field = "backend" if backend else "default_model_filename"
            text = f"Ensemble model '{name}' must have platform type 'ensemble' and empty backend type"
            yield field, text, f"remove the line {field}"
        elif not ensemble:
            text = f"ensemble scheduling must be set for ensemble {name} whose platform is ensemble"
            yield "platform", text, "write ensemble_scheduling { step [ … ] }, or the platform of a model file"
        return
    if ensemble:
        text = f"ensemble scheduling cannot be set for model '{name}' whose platform is not ensemble"
        yield ("platform" if platform else "ensemble_scheduling"), text, 'write platform: "ensemble" and no backend'
        return
    if not backend and platform and platform not in PLATFORMS:
        text = f"unexpected platform type '{platform}' for {name}"
        remedy = f'write backend: "{platform}"' if platform in backends_of(release) else "write the backend's name"
        yield "platform", text, OF_OLD_SERVERS.get(platform, remedy)
        return
    word = backend_of(model)
    if not word:
        if config.get("default_model_filename"):
            yield "default_model_filename", f"unexpected platform type '' for {name}", 'write backend: "…"'
            return
        text = (
            f"Invalid model name: Could not determine backend for model '{name}' with no backend in model "
            "configuration. Expected model name of the form 'model.<backend_name>'."
        )
        yield "", text, 'write backend: "…" into config.pbtxt, or move the folder out of the repository'
        return
    known = PLATFORM_OF.get(word, ())
    wrong = bool(platform) and platform not in known if known else platform in sum(PLATFORM_OF.values(), ())
    if (known and wrong) or (word == "tensorflow" and backend and not platform):
        text = f"unexpected 'platform' and 'backend' pair, got:{platform}, {word}"
        yield ("platform" if platform else "backend"), text, "remove the line platform"
        return
    if word == "python":
        yield from _module(default_filename(model))
    yield from library_problems(model, config, word, release)


def _module(filename: str) -> Iterator[Problem]:
    """The python backend imports the file by its name, from a process that reads paths as ASCII."""
    module = filename.removesuffix(".py")
    if module == filename:
        text = f"Model name must end with '.py'. Model name is \"{filename}\"."
        yield "default_model_filename", text, 'write backend: "python" and call the file model.py'
    elif "." in module or "" in module.split("/")[:-1] or not module.isascii():
        text = f"default_model_filename '{filename}': no module has such a name (ModuleNotFoundError)"
        yield "default_model_filename", text, "call the file model.py, in the version folder"


def _priorities(config: Json) -> Iterator[Problem]:
    name, batching = config["name"], config.get("dynamic_batching", {})
    levels, default = int(batching.get("priority_levels", 0)), int(batching.get("default_priority_level", 0))
    policies = batching.get("priority_queue_policy", {})
    if levels and not 1 <= default <= levels:
        text = f"default priority level must be in range [1, {levels}] for {name}"
        yield "default_priority_level" if default else "priority_levels", text, "write default_priority_level: 1"
    if levels and any(not 1 <= int(key) <= levels for key in policies):
        text = f"priority queue policy must have priority level in range [1, {levels}] for {name}"
        yield "priority_queue_policy", text, "give the policy the key of a level, from 1"
    if not batching.get("preserve_ordering"):
        return
    if levels > 1:
        text = f"Only one priority level is allowed when 'preserve_ordering' is true for {name}"
        yield "preserve_ordering", text, "remove preserve_ordering or the levels"
    for policy in (batching.get("default_queue_policy", {}), *policies.values()):
        if policy.get("timeout_action") == "DELAY" and int(policy.get("default_timeout_microseconds", 0)):
            text = f"Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for {name}"
            yield "DELAY", text, "write timeout_action: REJECT, or remove preserve_ordering"


def _cache(config: Json) -> Iterator[Problem]:
    if not config.get("response_cache", {}).get("enable"):
        return
    name, head = config["name"], "Response Cache does not currently support model"
    if "sequence_batching" in config:
        text = f"{head} {name} with sequence batching scheduler. Please disable the response cache."
        yield "response_cache", text, "remove response_cache"
    if config.get("model_transaction_policy", {}).get("decoupled"):
        text = f"{head} {name} with 'decoupled' transaction policy. Please disable the response cache."
        yield "response_cache", text, "remove response_cache"


def _controls(config: Json) -> Iterator[Problem]:
    name, seen = config["name"], set()
    values = ("int32_false_true", "fp32_false_true", "bool_false_true")
    words, head = "'int32_false_true', 'fp32_false_true'", "sequence batching specifies more than one from"
    for io in config.get("sequence_batching", {}).get("control_input", ()):
        tensor = io.get("name", "")
        if not tensor:
            text = f"sequence batching control tensor must have a name for {name}"
            yield "control_input", text, "give it the name of the model's input"
        elif tensor in seen:
            text = f"sequence batching control tensor '{tensor}' is specified for multiple control kinds for {name}"
            yield f'"{tensor}"', text, "use another input, or one control_input with two controls"
        seen.add(tensor)
        for control in io.get("control", ()):
            kind = control.get("kind", "CONTROL_SEQUENCE_START")
            given = [word for word in values if control.get(word)]
            if kind == "CONTROL_SEQUENCE_CORRID" and given:
                text = f"sequence batching must not specify either {words} or 'bool_false_true' for {kind} for {name}"
                yield given[0], text, f"remove {given[0]}: an ID has a data_type only"
            elif kind != "CONTROL_SEQUENCE_CORRID" and not kind.lstrip("-").isdigit() and len(given) > 1:
                text = f"{head} {words} and 'bool_false_true' for {kind} for {name}"
                yield given[1], text, "keep the one of the input's type"


def _batch_io(config: Json) -> Iterator[Problem]:
    name = config["name"]
    inputs, outputs = ({io.get("name", "") for io in config.get(side, ())} for side, _ in SIDES)
    for side, first in (("input", "BATCH_ELEMENT_COUNT"), ("output", "BATCH_SCATTER_WITH_INPUT_SHAPE")):
        field = f"batch_{side}"
        for item in config.get(field, ()):
            kind, sources, targets = item.get("kind", first), item.get("source_input", []), item.get("target_name", [])
            if kind.lstrip("-").isdigit():
                yield field, f"unknown batch {side} kind '' for {name}", f"write kind: {first}"
            if len(sources) != 1:
                text = f"batch {side} kind '{kind}' expects 1 source input, got {len(sources)} for {name}"
                yield field, text, "name one input in source_input"
            if side == "input" and item.get("data_type") not in ("TYPE_INT32", "TYPE_FP32"):
                text = f"batch input data type must be TYPE_INT32 or TYPE_FP32 for {name}"
                yield field, text, "write data_type: TYPE_FP32"
            for source in (source for source in sources if source not in inputs):
                yield field, f"unknown source input name '{source}' for {name}", f"name one of {sorted(inputs)}"
            for place, target in enumerate(targets if side == "output" else ()):
                if target not in outputs:
                    yield field, f"unknown target output name '{target}' for {name}", f"name one of {sorted(outputs)}"
                elif target in targets[:place]:
                    text = f"target output name '{target}' can only be specified once for {name}"
                    yield field, text, "name it once"


def _metrics(config: Json) -> Iterator[Problem]:
    for control in config.get("model_metrics", {}).get("metric_control", ()):
        if "metric_identifier" not in control:
            text = "metric control must specify 'metric_identifier'"
        elif not control["metric_identifier"].get("family"):
            text = "metric identifier must specify non-empty 'family'"
        elif "histogram_options" not in control:
            text = "metric control must specify 'histogram_options'"
        elif not control["histogram_options"].get("buckets"):
            text = "histogram options must specify non-empty 'buckets'"
        else:
            continue
        yield "metric_control", text, 'write metric_identifier { family: "…" } and histogram_options { buckets: [ … ] }'


def _crashes(config: Json) -> Iterator[Problem]:
    """What ends the whole server instead of being refused."""
    if "model_repository_agents" in config and not config["model_repository_agents"].get("agents"):
        yield "model_repository_agents", "model_repository_agents names no agent: the whole server ends", "remove it"
    for key in config.get("metric_tags", {}):
        # The label is the key after an underscore, and a label may not begin with two.
        if not re.fullmatch(r"([a-zA-Z0-9][a-zA-Z0-9_]*)?", key):
            text = f"metric tag '{key}' is no name for a metric's label: the whole server ends"
            yield f'"{key}"', text, "use letters, digits and _, and none of _ at the beginning"
    for state in config.get("sequence_batching", {}).get("state", ()):
        for first in state.get("initial_state", ()):
            if any(size < -1 for size in sizes(first.get("dims"))):
                text = f"initial_state of '{state.get('input_name', '')}' has a negative size: the whole server ends"
                yield "initial_state", text, "write sizes"
            elif prod(sizes(first.get("dims"))) * 4 % 2**64 > LARGEST_STATE:
                text = (
                    f"initial_state of '{state.get('input_name', '')}' is larger than any memory: the whole server ends"
                )
                yield "initial_state", text, "write its true sizes"
    slots = int(config.get("sequence_batching", {}).get("oldest", {}).get("max_candidate_sequences", 0))
    if slots > MOST_SEQUENCES:
        text = f"max_candidate_sequences {slots} takes more memory than there is: the whole server ends"
        yield "max_candidate_sequences", text, "write how many sequences run at once"


def _agents(model: ModelDir) -> Iterator[Finding]:
    for agent in (model.config or {}).get("model_repository_agents", {}).get("agents", ()):
        name = agent.get("name", "")
        text = f"unable to find 'libtritonrepoagent_{name}.so' for repo agent '{name}'"
        line = line_of(model, "model_repository_agents")
        known = name in AGENTS
        remedy = "the container has it, other builds may not" if known else "remove it, or install it in the server"
        yield Finding(
            "warning" if known else "error", "core", text, remedy, model=model.name, file=model.config_file, line=line
        )
