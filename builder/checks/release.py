"""What the chosen release brings that bites, and instances that the machine has no cores for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.findings import Finding
from builder.native_rules import sizes
from builder.release_rules import config_problems
from builder.releases import get_release
from builder.scan import ModelDir, backend_of, line_of, scan_repository

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]

CORE_COUNT = 2
"""Instances of an onnxruntime model on a CPU where the configuration names none (core: model_config_utils.cc)."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """Limits and options of every model that has a configuration, and counts of all."""
    release = get_release(context.release)
    for model in scan_repository(repository):
        if model.config is not None:
            for severity, rule, message, remedy, word in config_problems(backend_of(model), model.config, release):
                line = line_of(model, word) if word else None
                yield Finding(
                    severity, f"release.{rule}", message, remedy, model=model.name, file=model.config_file, line=line
                )
            yield from _instances(model, context)
        completed = model.text is None and context.auto_complete
        if backend_of(model) == "onnxruntime" and (model.config is not None or completed):
            yield from _threads(model, context)


def _instances(model: ModelDir, context: CheckContext) -> Iterator[Finding]:
    count = sum(_on_cpu(group, context.gpus) for group in (model.config or {}).get("instance_group", ()))
    if context.cores and count > context.cores:
        message = (
            f"{count} instances run on the CPU, which has {context.cores} cores: they take turns and slow each other"
        )
        remedy = f"write count: {context.cores} or less, or name the serving machine's cores with --cores N"
        yield Finding(
            "warning",
            "release.instances",
            message,
            remedy,
            model=model.name,
            file=model.config_file,
            line=line_of(model, "count"),
        )


def _threads(model: ModelDir, context: CheckContext) -> Iterator[Finding]:
    """Instances of onnxruntime that have threads for all cores each, which spin while they wait.

    Seen on two cores (benchmarks/tune_baselines.py): 28 rows a second of a ResNet-50 from two of them, 40 from one.
    """
    config = model.config or {}
    groups, own = config.get("instance_group", ()), config.get("parameters", {}).get("intra_op_thread_count", {})
    if str(own.get("string_value", "0")) not in {"", "0"}:
        return
    count = sum(_on_cpu(group, context.gpus) for group in groups)
    if not groups and not context.gpus:
        count = CORE_COUNT
    if count > 1:
        given = "" if groups else ", as Triton does where there is no instance_group"
        yield Finding(
            "warning" if groups else "info",
            "release.threads",
            f"{count} instances run on the CPU{given}, and each has threads for all of its cores: they take turns",
            (
                "write instance_group [{ count: 1 kind: KIND_CPU }] (in a spec instances: {count: 1}), "
                "or share the cores out: "
                f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "CORES DIVIDED BY {count}" }} }}'
                f" (in a spec onnxruntime: {{intra_op_threads: CORES DIVIDED BY {count}}})"
            ),
            model=model.name,
            file=model.config_file,
            line=line_of(model, "instance_group") if groups else None,
        )


def _on_cpu(group: Json, gpus: int) -> int:
    """How many instances of the group run on the CPU, as the server places them."""
    kind, listed = group.get("kind", "KIND_AUTO"), sizes(group.get("gpus"))
    placed = kind == "KIND_CPU" or (kind == "KIND_AUTO" and (not gpus or any(gpu >= gpus for gpu in listed)))
    return max(int(group.get("count", 1)), 1) if placed else 0
