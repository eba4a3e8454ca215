"""What a repository asks of a server: backends and GPUs, read from its configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from builder.scan import ModelDir, backend_of, scan_repository

GPU_BACKENDS: Final = ("tensorrt", "tensorrtllm", "dali")
GPU_KIND: Final = "KIND_GPU"
NO_SERVER_BACKEND: Final = "ensemble"


@dataclass(frozen=True, slots=True)
class Needs:
    """`backends`: word → a model that wants it. `gpu`: model → why it needs one."""

    backends: Mapping[str, str]
    gpu: Mapping[str, str]


def needs_of(repository: Path) -> Needs:
    """What every model of the repository needs together."""
    models = scan_repository(repository)
    words = {backend_of(model): model.name for model in models}
    return Needs(
        MappingProxyType({word: name for word, name in sorted(words.items()) if word and word != NO_SERVER_BACKEND}),
        MappingProxyType({model.name: reason for model in models if (reason := _gpu_reason(model))}),
    )


def _gpu_reason(model: ModelDir) -> str:
    """Why the model needs a GPU; empty where it does not."""
    backend = backend_of(model)
    if backend in GPU_BACKENDS:
        return f"backend {backend}"
    config = model.config or {}
    if any(group.get("kind") == GPU_KIND for group in config.get("instance_group", [])):
        return f"an instance of {GPU_KIND}"
    named = _gpu_accelerators(config)
    return f"the accelerator {named[0]}" if named else ""


def _gpu_accelerators(config: Mapping[str, Any]) -> list[str]:
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    return [str(item.get("name")) for item in accelerators.get("gpu_execution_accelerator", [])]
