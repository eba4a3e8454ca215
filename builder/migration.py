"""From one release of Triton to another: what changed between them and concerns this repository, and what to do.

The facts stand in `releases.json` and `release_rules`; what is not known of an old release is said to be unknown. Where
a model breaks, the rules of `checks/` say so too: here stands why it did before, and the way to the new release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.findings import Finding, Severity
from builder.ports import inspect_ports, ports_json
from builder.release_rules import (
    HTTP_LIMIT_SINCE,
    OLD_GPUS_UNTIL,
    SMALLEST_CAPABILITY,
    TENSORFLOW_UNTIL,
    request_bytes,
)
from builder.releases import Origin, get_origin
from builder.scan import ModelDir, backend_of, line_of, model_file, scan_repository, served_versions

Json = dict[str, Any]

DIMS_CHECKED: Final = ("23.06", "24.03")
"""Somewhere after the first and not later than the second, onnxruntime's outputs began to be compared exactly."""
UNKNOWN: Final = "a version that is not known"


@dataclass(frozen=True, slots=True)
class _Way:
    """From where to where, for one repository."""

    repository: Path
    old: Origin
    new: Origin

    def crosses(self, last: str) -> bool:
        """Whether the way leads over the end of release `last`, in either direction."""
        return min(self.old.release, self.new.release) <= last < max(self.old.release, self.new.release)

    @property
    def text(self) -> str:
        return f"from Triton {self.old.release} to {self.new.release}"


def migration_report(repository: Path, old: str, new: str) -> tuple[Finding, ...]:
    """Every change between two releases that concerns a model of the repository.

    Raises:
        SpecError: one of the releases is unknown.
    """
    way = _Way(repository, get_origin(old), get_origin(new))
    found = [finding for model in scan_repository(repository) for finding in _model(model, way)]
    return (*found, *_whole(scan_repository(repository), way))


def _model(model: ModelDir, way: _Way) -> Iterator[Finding]:
    """The rules of the model's backend, and those for all."""
    rule = RULES.get(backend_of(model))
    if rule and not model.problem:
        yield from rule(model, way)
    yield from _own_libraries(model, way)
    if way.new.release >= HTTP_LIMIT_SINCE > way.old.release and model.config and _sizes_open(model.config):
        message = (
            f"sizes of its inputs are open: since {HTTP_LIMIT_SINCE} the server refuses HTTP bodies above 64 MiB, "
            f"which {way.old.release} took"
        )
        remedy = (
            "if a request can be that large, start tritonserver with --http-max-input-size=BYTES, or send it by gRPC"
        )
        yield _found(model, "info", "http_limit", message, remedy)


def _found(  # noqa: PLR0913, PLR0917 - the parts of a finding
    model: ModelDir, severity: Severity, rule: str, message: str, remedy: str, file: str = "", line: int | None = None
) -> Finding:
    return Finding(
        severity, f"migration.{rule}", message, remedy, model=model.name, file=file or model.config_file, line=line
    )


def _sizes_open(config: Json) -> bool:
    return bool(config.get("input")) and request_bytes(config) is None


def _tensorflow(model: ModelDir, way: _Way) -> Iterator[Finding]:
    if way.new.release <= TENSORFLOW_UNTIL:
        return
    release, target = way.new.release, f"migrated-{way.new.release}"
    path = _artefact(model, "model.savedmodel", "model.graphdef")
    message = f"Triton {release} has no TensorFlow backend: it is gone since 25.03"
    line = line_of(model, "platform") or line_of(model, "backend")
    if path is None:
        remedy = "convert the SavedModel that the model was made from: build-repo build SAVED_MODEL"
    elif path.is_dir():
        remedy = f"build-repo build {path} --name {model.name} --triton {release} -o {target}"
    else:
        ports = " ".join(f"--{side}s {_tensors(model, side)}" for side in ("input", "output"))
        remedy = (
            f"python -m tf2onnx.convert --graphdef {path} {ports} --output {model.name}.onnx, then build-repo build "
            f"{model.name}.onnx --triton {release} -o {target}"
        )
    remedy += "; it serves the same names on onnxruntime or openvino, proven against the original"
    yield _found(model, "error", "tensorflow", message, remedy, line=line)


def _tensors(model: ModelDir, side: str) -> str:
    """Tensors of a frozen graph as tf2onnx wants them: the first output of each operator."""
    names = [str(io.get("name", "")) for io in (model.config or {}).get(side, ())]
    return ",".join(name if ":" in name else f"{name}:0" for name in names) or f"{side.upper()}:0"


def _artefact(model: ModelDir, *names: str) -> Path | None:
    """The model in its newest version, under its configured or a usual name."""
    given = (model.config or {}).get("default_model_filename")
    for version in sorted(model.versions, reverse=True):
        for name in (*((given,) if given else ()), *names):
            path: Path = model.path / str(version) / name
            if path.exists():
                return path
    return None


def _plan(model: ModelDir, way: _Way) -> Iterator[Finding]:
    old, new = way.old.tensorrt, way.new.tensorrt
    line = line_of(model, "platform") or line_of(model, "backend")
    if old and old == new:
        message = f"both releases have TensorRT {old}: the plan stays, on the GPU model that it was built on"
        yield _found(model, "info", "tensorrt", message, "nothing", line=line)
        return
    message = (
        f"its plan loads in no other TensorRT than its own: Triton {way.old.release} has {old or UNKNOWN}, "
        f"{way.new.release} has {new or UNKNOWN}"
    )
    remedy = (
        f"build it again from its ONNX file, in the image nvcr.io/nvidia/tritonserver:{way.new.release}-py3 on the GPU "
        f"that serves: build-repo build MODEL.onnx --name {model.name} --targets tensorrt:fp32 --triton "
        f"{way.new.release}; or serve that file by --targets onnxruntime:fp32, which needs no plan"
    )
    yield _found(model, "error", "tensorrt", message, remedy, line=line)


def _python(model: ModelDir, way: _Way) -> Iterator[Finding]:
    old, new = way.old.python, way.new.python
    if old == new:
        return
    message = f"its code ran in Python {old or '(which one is not known)'}, and runs in Python {new} then"
    remedy = (
        f"try model.py with Python {new}; install its packages again for it: pip install --target DIR --python-version "
        f"{new} --only-binary :all: -r requirements.txt; make packed environments again with Python {new}"
    )
    yield _found(model, "warning", "python", message, remedy)


def _onnx(model: ModelDir, way: _Way) -> Iterator[Finding]:
    yield from _outputs(model, way)
    if way.old.onnxruntime != way.new.onnxruntime:
        changed = f"ONNX Runtime {way.old.onnxruntime or f'({UNKNOWN})'} becomes {way.new.onnxruntime}"
        yield _other_library(model, "onnxruntime", changed, "its last digits may change")


def _other_library(model: ModelDir, backend: str, changed: str, consequence: str) -> Finding:
    """The file stays, what runs it is another."""
    remedy = f"compare on the new release: build-repo check REPO --model {model.name}"
    return _found(model, "info", backend, f"{changed}: the file stays, {consequence}", remedy)


def _outputs(model: ModelDir, way: _Way) -> Iterator[Finding]:
    """Dims of outputs that the file does not have."""
    first, last = DIMS_CHECKED
    if not (way.old.release < last <= way.new.release and model.config):
        return
    lead = 1 if int(model.config.get("max_batch_size", 0)) else 0
    shapes = _shapes(model)
    for io in model.config.get("output", ()):
        shape = shapes.get(str(io.get("name")))
        given = [int(dim) for dim in io.get("dims", ())]
        if shape and "reshape" not in io and len(shape) == len(given) + lead and given != shape[lead:]:
            message = (
                f"output '{io.get('name')}' has dims {given} and the model file {shape[lead:]}: accepted in {first}, "
                f"refused in {last} and later"
            )
            remedy = f"write dims: {shape[lead:]}, or let build-repo validate REPO --fix do it"
            yield _found(model, "warning", "dims", message, remedy, line=line_of(model, f'"{io.get("name")}"'))


def _shapes(model: ModelDir) -> dict[str, list[int]]:
    for version in served_versions(model)[-1:]:
        path = model_file(model, version)
        if path is None or not path.exists():
            continue
        try:
            ports = ports_json(inspect_ports(path))
        except SpecError:
            return {}
        return {port["name"]: port["shape"] for port in ports.get("outputs", ()) if port["shape"] is not None}
    return {}


def _openvino(model: ModelDir, way: _Way) -> Iterator[Finding]:
    if way.old.openvino != way.new.openvino:
        changed = f"OpenVINO {way.old.openvino or f'({UNKNOWN})'} becomes {way.new.openvino}"
        yield _other_library(model, "openvino", changed, "its last digits and its speed may change")


def _pytorch(model: ModelDir, way: _Way) -> Iterator[Finding]:
    message = f"{way.text} PyTorch changes, which the table of releases does not hold: a TorchScript file usually stays"
    remedy = "try it on the new release; an AOTInductor package (model.pt2) must be compiled again"
    yield _found(model, "warning", "pytorch", message, remedy)


RULES: Final[dict[str, Callable[[ModelDir, _Way], Iterator[Finding]]]] = {
    "tensorflow": _tensorflow,
    "tensorrt": _plan,
    "python": _python,
    "onnxruntime": _onnx,
    "openvino": _openvino,
    "pytorch": _pytorch,
}


def _own_libraries(model: ModelDir, way: _Way) -> Iterator[Finding]:
    """Compiled code that belongs to a server and its libraries."""
    for path in sorted(model.path.glob("**/libtriton_*.so")):
        file = str(path.relative_to(way.repository))
        message = f"{path.name} was compiled for Triton {way.old.release}"
        yield _found(model, "warning", "library", message, f"compile it again for {way.new.release}", file)
    for name in (model.config or {}).get("model_operations", {}).get("op_library_filename", ()):
        message = f"the library of operators {name!r} was compiled for the libraries of Triton {way.old.release}"
        remedy = f"compile it again for {way.new.release}"
        yield _found(model, "warning", "library", message, remedy, line=line_of(model, name))


def _whole(models: Sequence[ModelDir], way: _Way) -> Iterator[Finding]:
    """What concerns the server that all models share."""
    kinds = [group.get("kind") for model in models for group in (model.config or {}).get("instance_group", ())]
    on_gpu = "KIND_GPU" in kinds or any(backend_of(model) == "tensorrt" for model in models)
    if on_gpu and way.crosses(OLD_GPUS_UNTIL):
        message = (
            f"Triton since 25.02 needs GPUs of compute capability {SMALLEST_CAPABILITY} or newer; before it was 6.0"
        )
        yield Finding("warning", "migration.gpu", message, "look the GPU up: nvidia-smi --query-gpu=compute_cap")
    if on_gpu and way.old.cuda != way.new.cuda:
        message = f"CUDA {way.old.cuda or '(a version that is not known)'} becomes {way.new.cuda}"
        remedy = "see the release notes for the driver that it needs"
        yield Finding("info", "migration.cuda", message, remedy)
