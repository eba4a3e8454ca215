"""What the server would make of a configuration by itself: the backend's part from the file, the core's defaults."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from builder.errors import SpecError
from builder.native_rules import auto_completed, batch_size
from builder.ports import inspect_ports, ports_json
from builder.scan import ModelDir, backend_of, default_filename, model_file, served_versions

Json = dict[str, Any]

PLATFORM: Final = {
    "onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "pytorch": "pytorch_libtorch",
    "ensemble": "ensemble",
}  # fmt: skip
IDLE_US: Final = 1_000_000
TWO_INSTANCES: Final = ("onnxruntime", "tensorflow")
"""Backends that get two instances on a CPU where no count is said."""


@dataclass(frozen=True, slots=True)
class Completed:
    """`known` is False where inputs and outputs come from code or a file that is not read here; `note` says why."""

    config: Json
    known: bool
    note: str = ""


def completed_config(model: ModelDir, *, auto_complete: bool = True, gpus: int = 0) -> Completed:
    """The whole configuration as the server would hold it."""
    backend = backend_of(model)
    config = _named(model, backend)
    note = ""
    if auto_complete and backend != "ensemble":
        config, note = _from_file(model, backend, config)
    _schedulers(config)
    if backend != "ensemble":
        _instances(config, backend, gpus)
    known = bool(config.get("input") and config.get("output")) or _says_nothing(model, backend)
    return Completed(config, known, "" if known else note)


def _says_nothing(model: ModelDir, backend: str) -> bool:
    """A Python model without the function that completes: what the file leaves out stays out."""
    paths = [path for version in served_versions(model)[-1:] if (path := model_file(model, version))]
    return backend == "python" and all(
        path.is_file() and b"auto_complete_config" not in path.read_bytes() for path in paths
    )


def _named(model: ModelDir, backend: str) -> Json:
    config = {"name": model.name, **copy.deepcopy(model.config or {})}
    if not config.get("platform") and backend in PLATFORM:
        config["platform"] = PLATFORM[backend]
    if backend and backend != "ensemble":
        config.setdefault("backend", backend)
        if filename := default_filename(model):
            config["default_model_filename"] = filename
    config.setdefault("version_policy", {"latest": {"num_versions": 1}})
    return config


def _from_file(model: ModelDir, backend: str, config: Json) -> tuple[Json, str]:
    if config.get("input") and config.get("output"):
        return config, ""
    if backend not in ("onnxruntime", "openvino"):
        return config, f"the {backend or 'unknown'} backend completes inputs and outputs when it loads the model"
    for version in served_versions(model)[-1:]:
        path = model_file(model, version)
        if path is None or not path.exists():
            return config, f"{path.name if path else 'the model file'} is not there"
        try:
            done = auto_completed(backend, config, ports_json(inspect_ports(path)))
        except SpecError as error:
            return config, error.message
        return (config, done) if isinstance(done, str) else (done, "")
    return config, "no version is there"


def _schedulers(config: Json) -> None:
    preferred = [batch_size(config)] if batch_size(config) > 0 else []
    batching, sequences = config.get("dynamic_batching"), config.get("sequence_batching")
    if batching is not None and preferred:
        batching.setdefault("preferred_batch_size", preferred)
    if sequences is not None:
        sequences.setdefault("max_sequence_idle_microseconds", str(IDLE_US))
        if "oldest" in sequences and preferred:
            sequences["oldest"].setdefault("preferred_batch_size", preferred)


def _instances(config: Json, backend: str, gpus: int) -> None:
    groups = config.get("instance_group") or [{"name": config["name"]}]
    config["instance_group"] = groups
    for index, group in enumerate(groups):
        group["name"] = group.get("name") or f"{config['name']}_{index}"
        listed = [int(gpu) for gpu in group.get("gpus", ())]
        if group.get("kind", "KIND_AUTO") == "KIND_AUTO":
            there = backend != "openvino" and gpus and all(gpu < gpus for gpu in listed)
            group["kind"] = "KIND_GPU" if there else "KIND_CPU"
        if int(group.get("count", 0)) < 1:
            group["count"] = 2 if backend in TWO_INSTANCES and group["kind"] == "KIND_CPU" else 1
        if group["kind"] == "KIND_GPU" and not listed:
            group["gpus"] = list(range(gpus))
    optimization = config.setdefault("optimization", {})
    for word in ("input_pinned_memory", "output_pinned_memory"):
        optimization.setdefault(word, {"enable": True})
