"""`config.pbtxt` of one served artefact: decisions here, text in `templates/config/`, judged by Triton's own proto.

What is decided, and why:

- Names, order and dtypes are the source's, dims the artefact's own: the native backends compare dims with the file.
- `max_batch_size` > 0 only where the native backend takes requests of any size (openvino compiles for one size), the
  batch axis is proven, and every tensor has it. A tensor of rank 1 would be `[N, 1]` on the wire, so such a model is
  served unbatched with its true shapes unless the user asks for batching.
- Instances: `auto` is `KIND_CPU` for onnxruntime, openvino and pytorch. The artefact was measured on the CPU, and what
  was measured is what is served, on a machine with a GPU too; `kind: gpu` asks for more. One instance is written
  because Triton starts two for onnxruntime on a CPU when the count is left out. TensorRT runs on GPUs only.
- No `version_policy` unless the spec asks for one: Triton serves the latest version, older ones stay for a way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from builder import defaults
from builder.errors import BuildError, SpecError
from builder.findings import Finding, Severity
from builder.measurement import Ragged, served_signature
from builder.releases import get_release
from builder.tensors import BY_NUMPY, Signature, Tensor
from builder.triton_config.overrides import apply_overrides
from builder.triton_config.ragged import add_ragged
from builder.triton_config.sequence import SequenceRequest, initial_state_files, sequence_batching
from builder.triton_config.serving import dynamic_batching, instance_group, version_policy
from builder.triton_config.text import config_to_text, parse_config
from builder.triton_config.warmup import (
    WarmupInput,
    WarmupRequest,
    reshape_warmup,
    warmup_data,
    warmup_entry,
    warmup_from_samples,
)

if TYPE_CHECKING:
    from builder.spec_serving import BatchingSpec, InstancesSpec, VersionsSpec

__all__ = (
    "ConfigRequest", "ConfigText", "SequenceRequest", "WarmupInput", "WarmupRequest", "config_to_text",
    "initial_state_files", "parse_config", "render_config", "warmup_files", "warmup_from_samples",
)  # fmt: skip

Json = dict[str, Any]

TRITON_WORDS: Final = {"onnxruntime+tensorrt": "onnxruntime"}
"""Targets that are not named as their backend, and its word."""
CAN_BATCH: Final = {
    "onnxruntime": True, "onnxruntime+tensorrt": True, "openvino": False, "pytorch": True, "python": True,
    "tensorrt": True,
}  # fmt: skip
"""Whether max_batch_size > 0 is safe in the native backend for requests of any size."""
PLATFORM: Final = {"pytorch": "pytorch_libtorch", "tensorrt": "tensorrt_plan"}
"""The core knows TensorRT's shape tensors and profiles by the platform; the pytorch backend has more than one kind."""
KINDS: Final = {
    "onnxruntime": {"auto": "KIND_CPU", "cpu": "KIND_CPU", "gpu": "KIND_GPU"},
    "onnxruntime+tensorrt": {"auto": "KIND_GPU", "gpu": "KIND_GPU"},
    "openvino": {"auto": "KIND_CPU", "cpu": "KIND_CPU"},
    "pytorch": {"auto": "KIND_CPU", "cpu": "KIND_CPU", "gpu": "KIND_GPU"},
    "python": {"auto": "KIND_CPU", "cpu": "KIND_CPU", "gpu": "KIND_GPU"},
    "tensorrt": {"auto": "KIND_GPU", "gpu": "KIND_GPU"},
}


def _versions() -> VersionsSpec:
    """The default; pydantic is too slow to import for those who only read configurations."""
    from builder.spec_serving import VersionsSpec

    return VersionsSpec()


@dataclass(frozen=True, slots=True)
class ConfigRequest:
    """Everything that decides a `config.pbtxt`.

    `signature` is the source's, `ports` the artefact's own. `label_files` maps an output to a file in the model's
    folder. `settings` and `overrides` are ModelConfig fields in Triton's names: what the backend needs to run the
    artefact as it was measured, and what the user says; `more` is what a named configuration says
    beyond that. `cc_model_filenames` maps a compute capability to the file of its engine.
    """

    name: str
    backend: str
    release: str
    signature: Signature
    ports: Signature
    batch_proven: bool
    batching: BatchingSpec
    instances: tuple[InstancesSpec, ...]
    label_files: Mapping[str, str] = field(default_factory=dict)
    warmup: tuple[WarmupRequest, ...] = ()
    default_model_filename: str | None = None
    cc_model_filenames: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    sequence: SequenceRequest | None = None
    ragged: Ragged | None = None
    versions: VersionsSpec = field(default_factory=_versions)
    response_cache: bool = False

    @property
    def served(self) -> Signature:
        """What clients see of the signature."""
        if self.ragged is not None:
            return self.ragged.served(self.signature)
        return served_signature(self.signature, self.sequence.sequencing if self.sequence else None)


@dataclass(frozen=True, slots=True)
class ConfigText:
    """The text of the file, and what the user should know about the decisions in it."""

    text: str
    findings: tuple[Finding, ...] = ()


def render_config(request: ConfigRequest) -> ConfigText:
    """The complete configuration: loads with auto-complete disabled.

    Raises:
        SpecError: the release is unknown, or an override or label file does not fit the model.
        BuildError: the artefact lacks a tensor of the source.
    """
    get_release(request.release)
    max_batch_size, batch_findings = _max_batch_size(request)
    groups, group_findings = _instance_groups(request)
    word = TRITON_WORDS.get(request.backend, request.backend)
    config: Json = {"name": request.name, "backend": word, "max_batch_size": max_batch_size}
    if request.backend in PLATFORM:
        config["platform"] = PLATFORM[request.backend]
    if request.default_model_filename:
        config["default_model_filename"] = request.default_model_filename
    if request.cc_model_filenames:
        config["cc_model_filenames"] = dict(request.cc_model_filenames)
    config["input"] = [
        _tensor(request, tensor, request.ports.inputs, "input", max_batch_size) for tensor in request.served.inputs
    ]
    config["output"] = [
        _tensor(request, tensor, request.ports.outputs, "output", max_batch_size) for tensor in request.served.outputs
    ]
    if request.ragged is not None:
        add_ragged(config, request.ragged, request.signature)
    _add_labels(config, request)
    config["instance_group"] = groups
    if request.sequence is not None:
        config["sequence_batching"] = sequence_batching(
            request.sequence, request.signature, request.batching, max_batch_size
        )
    else:
        _add(config, "dynamic_batching", dynamic_batching(request.batching, max_batch_size))
    _add(config, "version_policy", version_policy(request.versions))
    if request.response_cache:
        config["response_cache"] = {"enable": True}
    if request.warmup:
        config["model_warmup"] = [warmup_entry(item, max_batch_size=max_batch_size) for item in request.warmup]
    settings = {key: value for key, value in request.settings.items() if key != "instance_group"}
    for fields in (settings, request.overrides, request.more):
        config = apply_overrides(config, dict(fields), request.release)
    reshape_warmup(config, request.warmup)
    text = config_to_text(config, template=word, release=request.release)
    return ConfigText(text, batch_findings + group_findings + _engine_findings(request) + _unmeasured(request))


def _unmeasured(request: ConfigRequest) -> tuple[Finding, ...]:
    """An accelerator that only `config:` names runs nowhere but in the server that is served from."""
    given = [fields.get("optimization", {}) for fields in (request.overrides, request.more)]
    sides = [side for optimization in given for side in optimization.get("execution_accelerators", {}).values()]
    names = sorted({str(item.get("name")) for side in sides for item in side})
    if not names:
        return ()
    message = f"{', '.join(names)} under config: optimization is neither measured nor checked live here"
    remedy = "compare its answers on a server that has it: build-repo check REPO --url grpc://HOST:PORT"
    if "cuda" in names or "tensorrt" in names:
        remedy += "; or use the word onnxruntime: {cuda: …}, or an onnxruntime+tensorrt target, which are measured"
    return (_finding(request, "warning", "config.unmeasured", message, remedy),)


def _add(config: Json, field: str, value: Json | None) -> None:
    if value is not None:
        config[field] = value


def _engine_findings(request: ConfigRequest) -> tuple[Finding, ...]:
    """Engines of some GPUs only: a server with another one refuses the model."""
    if not request.cc_model_filenames:
        return ()
    known = ", ".join(sorted(request.cc_model_filenames))
    message = f"there are engines for the compute capability {known}; on any other GPU Triton refuses this model"
    remedy = (
        "build on a machine with such a GPU into the same repository, which adds its engine; or "
        "tensorrt: {hardware_compatible: ampere_plus}; or serve: all with an onnxruntime target beside it"
    )
    return (_finding(request, "info", "config.engines", message, remedy),)


def warmup_files(request: ConfigRequest) -> dict[str, bytes]:
    """Path relative to the model's folder → content of the files that the warm-up requests read."""
    return warmup_data(request.warmup, max_batch_size=_max_batch_size(request)[0])


def _tensor(request: ConfigRequest, tensor: Tensor, ports: tuple[Tensor, ...], side: str, max_batch_size: int) -> Json:
    port = next((port for port in ports if port.name == tensor.name), None)
    if port is None:
        names = ", ".join(port.name for port in ports)
        msg = f"{request.name}: the {request.backend} artefact has no {side} {tensor.name!r}; it has {names}"
        raise BuildError(msg, remedy="this is a fault of the conversion; build again with an empty cache and report it")
    shape = _sequence_shape(request, tensor, port.wire_shape) if side == "input" else port.wire_shape
    dims = list(shape[1:] if max_batch_size else shape)
    data: Json = {"name": tensor.name, "data_type": BY_NUMPY[tensor.dtype].triton, "dims": dims or [1]}
    if not dims and max_batch_size:
        data["reshape"] = {"shape": []}
    return data


def _sequence_shape(request: ConfigRequest, tensor: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that have one size in a sequence; without batching the batch axis too, as a step is one row."""
    if request.sequence is None:
        return shape
    sizes: dict[Any, int] = dict(request.sequence.sequencing.sizes)
    if request.signature.has_batch_axis:
        sizes |= {axis.shape[0]: 1 for axis in request.signature.inputs}
    return tuple(sizes.get(dim, size) if size < 0 else size for dim, size in zip(tensor.shape, shape, strict=True))


def _add_labels(config: Json, request: ConfigRequest) -> None:
    outputs = {output["name"]: output for output in config["output"]}
    for name, file_name in request.label_files.items():
        if name not in outputs:
            msg = f"{request.name}: there is no output {name!r} to label; the outputs are {', '.join(outputs)}"
            raise SpecError(msg, remedy="name an output of the model")
        outputs[name]["label_filename"] = file_name


def _max_batch_size(request: ConfigRequest) -> tuple[int, tuple[Finding, ...]]:
    """The size, and a finding where the user's wish is dropped or the shapes forbid it."""
    wanted = request.batching.max_batch_size
    if wanted == 0:
        return 0, ()
    reason = _why_unbatched(request)
    if reason:
        asked = request.batching.model_fields_set & {"max_batch_size", "preferred", "max_queue_delay_us"}
        message = f"batching is dropped: {reason}"
        return 0, (_finding(request, "warning", "config.batching", message, _BATCHING_REMEDY),) if asked else ()
    flat = next((port for port in request.ports.tensors if len(port.shape) == 1), None)
    if flat is not None and wanted is None and request.ragged is None:
        message = (
            f"served without batching: {flat.describe()} has only a batch axis, and with max_batch_size > 0 it is "
            "[N,1] on the wire instead of [N]"
        )
        remedy = "batching: {max_batch_size: N} in the spec batches it all the same, with the shape [N,1] on the wire"
        return 0, (_finding(request, "info", "config.batching", message, remedy),)
    return (defaults.MAX_BATCH_SIZE if wanted is None else wanted), ()


_BATCHING_REMEDY = "leave batching: out of the spec, or write batching: {max_batch_size: 0}"


def _why_unbatched(request: ConfigRequest) -> str:
    """Why Triton cannot batch requests for this artefact; empty when it can."""
    if not CAN_BATCH[request.backend]:
        return (
            f"the {request.backend} backend compiles for one batch size and fails on others, so the model is served "
            "with max_batch_size 0 and full dims"
        )
    for tensor in (*request.ports.tensors, *request.signature.tensors):
        if not tensor.shape:
            return f"{tensor.name!r} is a scalar and has no batch axis"
        if not isinstance(tensor.shape[0], str):
            return f"the first axis of {tensor.describe()} is fixed"
    if not request.ports.inputs:
        return "the model has no input"
    if not request.batch_proven:
        return "the batch axis is not proven: rows of a batch did not equal the same rows alone"
    return ""


def _instance_groups(request: ConfigRequest) -> tuple[list[Json], tuple[Finding, ...]]:
    kinds = KINDS[request.backend]
    measured: Json = next(iter(request.settings.get("instance_group", ())), {})
    profiles = request.backend == "tensorrt"
    groups = [instance_group(group, kinds, measured, profiles=profiles) for group in request.instances]
    lost = next((group.kind for group in request.instances if group.kind not in kinds), None)
    if lost is None:
        return groups, ()
    message = f"instances.kind {lost} is dropped: the {request.backend} backend runs on {kinds['auto'][5:]} only"
    return groups, (_finding(request, "warning", "config.instances", message, "leave instances.kind out of the spec"),)


def _finding(request: ConfigRequest, severity: Severity, check: str, message: str, remedy: str) -> Finding:
    return Finding(severity, check, message, remedy, model=request.name, file=f"{request.name}/config.pbtxt")
