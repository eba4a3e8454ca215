"""A parsed network → a serialised engine: limits, compatibility, timing cache, progress."""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import BuildError
from builder.frameworks.tensorrt.library import describe, logger
from builder.frameworks.tensorrt.network import Network

COMPATIBILITY: Final = {
    "none": "NONE",
    "ampere_plus": "AMPERE_PLUS",
    "same_compute_capability": "SAME_COMPUTE_CAPABILITY",
}
"""Words of the spec → TensorRT's levels."""
PROGRESS_SECONDS: Final = 5.0
TOLD: Final = 3
"""TensorRT's own error lines that a message holds."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the spec says of the engine."""

    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    tf32: bool = True
    optimization_level: int | None = None

    @staticmethod
    def of(options: Mapping[str, Any]) -> Choices:
        """The words of `tensorrt:` in a spec that are the builder's."""
        return Choices(**{name: options[name] for name in Choices.__slots__ if options.get(name) is not None})


def make_config(network: Network, choices: Choices) -> Any:  # noqa: ANN401 - IBuilderConfig
    """The builder's configuration, without profiles.

    Raises:
        BuildError: this TensorRT lacks a choice of the spec.
    """
    library = network.library
    config = network.builder.create_builder_config()
    if choices.workspace_bytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, choices.workspace_bytes)
    if choices.optimization_level is not None:
        config.builder_optimization_level = choices.optimization_level
    if choices.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if not choices.tf32:
        config.clear_flag(library.BuilderFlag.TF32)
    level = getattr(library.HardwareCompatibilityLevel, COMPATIBILITY[choices.hardware_compatible], None)
    if level is None:
        raise BuildError(
            f"{describe(library)} cannot build engines with hardware_compatible: {choices.hardware_compatible}",
            remedy="use hardware_compatible: ampere_plus, or leave it out",
        )
    if choices.hardware_compatible != "none":
        config.hardware_compatibility_level = level
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    config.progress_monitor = _monitor(library)
    return config


def build_engine(network: Network, config: Any, cache_file: Path | None) -> bytes:  # noqa: ANN401
    """The serialised engine. Timings of kernels are read from `cache_file` and added to it; None keeps none.

    Raises:
        BuildError: the builder refuses the network, in its own words.
    """
    log = logger(network.library)
    log.errors.clear()
    if cache_file is not None:
        _read_timings(config, cache_file)
    plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        said = "; ".join(" ".join(text.split()) for text in log.errors[-TOLD:]) or "it gave no reason"
        raise BuildError(
            f"{describe(network.library)} parsed the model and could not build an engine for it: {said}",
            remedy="give the sizes that will be served with tensorrt: {profiles: […]}, raise "
            "tensorrt: {workspace_bytes: N}, or use onnxruntime+tensorrt",
        )
    if cache_file is not None:
        _write_timings(config, cache_file)
    return bytes(plan)


def timing_cache_file(shared: Path, library: Any, gpu: str) -> Path:  # noqa: ANN401
    """Timings hold for one GPU and one version of the library."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{describe(library)}-{gpu}")
    return shared / "tensorrt" / f"{name}.timing"


def _read_timings(config: Any, file: Path) -> None:  # noqa: ANN401
    held = file.read_bytes() if file.is_file() else b""
    with warnings.catch_warnings():
        # Deprecated in tensorrt-rtx alone, where it does nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = config.create_timing_cache(held) or config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)


def _write_timings(config: Any, file: Path) -> None:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = config.get_timing_cache()
        content = bytes(cache.serialize()) if cache is not None else b""
    if content:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(file)


def _monitor(library: Any) -> Any:  # noqa: ANN401
    """The outer phases, and how far the longest have come, in the work's log; an engine can take an hour."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.said = time.monotonic()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            if parent is None:
                self.say(f"{phase}: {steps} steps")

        def step_complete(self, phase: str, step: int) -> bool:
            if time.monotonic() - self.said > PROGRESS_SECONDS:
                self.say(f"{phase}: step {step + 1} of {self.steps.get(phase, step + 1)}")
            return True

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def say(self, text: str) -> None:
            self.said = time.monotonic()
            sys.stderr.write(f"tensorrt: {text}\n")
            sys.stderr.flush()

    return Monitor()
