"""Triton's tensorrt backend: an engine built with TensorRT on the machine's GPU, strongly typed by its ONNX graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.backends import Conversion, Settings
from builder.errors import BuildError, MachineError
from builder.frameworks.tensorrt.library import REAL, STAND_IN
from builder.frameworks.tensorrt.version_lock import IMAGES, VERSION
from builder.frameworks.tensorrt.version_lock import mismatch as versions_differ
from builder.libraries import library_versions
from builder.machine import gpu, has_nvidia_gpu
from builder.measurement import PreflightReport
from builder.tensors import BY_NUMPY, Signature

if TYPE_CHECKING:
    from builder.frameworks.tensorrt.runner import EngineSession

GRAPHS = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "int8"}
FORMAT = "onnx"
DIALECT = "tensorrt"
LIBRARIES = ("tensorrt",)
EXTRA = "tensorrt"
FILENAME = "model.plan"
CAN_BATCH = True
OPTIONS_DECIDE = True
DEFERS = True
PREFLIGHT_LIBRARIES = ("tensorrt-rtx",)

LEAVE: Final = "remove the tensorrt target, or add --defer to build it later"
CHOICES: Final = f"{LEAVE}, on a machine with an NVIDIA GPU"
PACKAGE: Final = "pip install tensorrt== the version of the target release (docs/guides/tensorrt.md)"


def missing() -> tuple[str, str] | None:
    """A GPU first: without one the packages would not help."""
    from builder.frameworks.tensorrt.device_memory import REMEDY, available

    if not has_nvidia_gpu():
        return "a tensorrt target needs an NVIDIA GPU, and this machine shows none", CHOICES
    if gpu() is None:
        return "there is an NVIDIA device, and its driver does not answer", f"check nvidia-smi; or {CHOICES}"
    if find_spec(REAL) is None:
        return "the Python package tensorrt is not installed", f"{PACKAGE}; or {LEAVE}"
    if available() is None:
        return "an engine is measured with pycuda or cuda-python, and neither is installed", f"{REMEDY}; or {LEAVE}"
    return None


def mismatch(release: str, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why an engine built here would not load in the release's server, and the ways out."""
    installed = library_versions(LIBRARIES)["tensorrt"]
    return versions_differ(installed, release, os.environ, version_compatible=bool(options.get("version_compatible")))


def device_facts() -> dict[str, str]:
    """What of the machine decides an engine, and what an image says of its TensorRT."""
    found = gpu()
    facts = {word: os.environ[word] for word in (*IMAGES, VERSION) if os.environ.get(word)}
    return facts | ({"gpu": found.name, "compute_capability": found.compute_capability} if found else {})


def config_fields(settings: Settings) -> dict[str, Any]:
    """Every profile of the engine, where there are several: the server takes the closest for each request."""
    count = len(settings.options.get("profiles", ()))
    return {"instance_group": [{"profile": [str(number) for number in range(count)]}]} if count > 1 else {}


def refuses(signature: Signature, release: str) -> str | None:  # noqa: ARG001 - the same in every release
    """The types that TensorRT has."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            row = BY_NUMPY[tensor.dtype]
            if row.tensorrt is None:
                return f"unsupported datatype {row.triton} for {side} '{tensor.name}'"
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Parse, build and write the engine of this machine's GPU.

    Raises:
        MachineError: there is no GPU, or no TensorRT.
        BuildError: its version is not the release's, or its parser or builder refuses the model.
    """
    lack = missing()
    if lack is not None:
        raise MachineError(lack[0], remedy=lack[1])
    locked = mismatch(job.release, job.options)
    if locked is not None:
        raise BuildError(locked[0], remedy=locked[1])
    from builder.frameworks.tensorrt.conversion import convert_model
    from builder.frameworks.tensorrt.engine import timing_cache_file
    from builder.frameworks.tensorrt.library import load

    library, found = load(REAL), gpu()
    capability = found.compute_capability if found else ""
    timings = timing_cache_file(job.shared, library, f"{found.name} {capability}" if found else "")
    built = convert_model(library, job.model, job.export, job.signature, job.options, cache_file=timings)
    (out / engine_file(job.options, capability)).write_bytes(built.plan)
    return built.ports


def engine_file(options: Mapping[str, Any], capability: str) -> str:
    """An engine for one compute capability says so in its name, so that those of other GPUs can lie beside it."""
    if options.get("hardware_compatible") == "ampere_plus":
        return FILENAME
    return f"model_sm{capability.replace('.', '')}.plan"


def can_preflight() -> bool:
    """Whether `tensorrt-rtx` is here: TensorRT's parser and builder, without a GPU."""
    return find_spec(STAND_IN) is not None


def preflight(job: Conversion) -> PreflightReport:
    """Everything but the real engine, with `tensorrt-rtx`, whose own engine is thrown away.

    Raises:
        BuildError: its parser (every error with its node) or builder refuses the model.
    """
    from builder.frameworks.tensorrt.conversion import convert_model
    from builder.frameworks.tensorrt.library import describe, load

    library = load(STAND_IN)
    built = convert_model(library, job.model, job.export, job.signature, job.options)
    return PreflightReport(describe(library), built.layers, len(built.profiles), built.proof)


def open_session(folder: Path, signature: Signature, settings: Settings) -> EngineSession:
    """Load the engine of `folder` on this machine's GPU.

    Raises:
        MachineError: there is no GPU, or a package is missing.
        BuildError: TensorRT does not load it.
    """
    lack = missing()
    if lack is not None:
        raise MachineError(lack[0], remedy=lack[1])
    from builder.frameworks.tensorrt.library import load
    from builder.frameworks.tensorrt.runner import EngineSession

    file = next(path for path in sorted(folder.glob("model*.plan")))
    found = gpu()
    return EngineSession(
        load(REAL), file.read_bytes(), signature, f"{_computes(settings)}, {found.name if found else ''}"
    )


def _computes(settings: Settings) -> str:
    """TensorRT multiplies fp32 in TF32 where the GPU has it, unless told otherwise."""
    return "tf32" if settings.precision == "fp32" and settings.options.get("tf32", True) else settings.precision
