"""Each configuration against its own model file, by the rules of Triton's native backends."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError, SpecError
from builder.findings import Finding
from builder.frameworks.tensorrt.plan_file import cannot_read, plan_name, read_plan
from builder.native_rules import is_torchscript, refusals
from builder.native_warnings import warnings
from builder.plan_rules import plan_refusals, plan_warnings
from builder.ports import Ports, inspect_ports, ports_json
from builder.release_rules import file_problems
from builder.releases import get_release
from builder.scan import ModelDir, backend_of, joined, line_of, model_file, scan_repository, served_versions

if TYPE_CHECKING:
    from builder.checks import CheckContext

Json = dict[str, Any]

LATER = ("every request would fail", "would be mixed up", "would never come back")
"""Words of what a build refuses, and the server loads all the same."""
OTHER_FRAMEWORKS = (".pdmodel", ".tflite", ".pb")
"""What OpenVINO reads beside its own format and ONNX; a folder is a SavedModel."""
READABLE = ("onnxruntime", "openvino", "pytorch")
FILE_REMEDY: Final = "change config.pbtxt to what the model file says, or build the model again"
REMEDIES: Final = {
    "must be <= max batch size": "write preferred sizes of at most max_batch_size, or a larger max_batch_size",
    "no GPUs are available": (
        "write KIND_CPU, or name the serving machine's GPUs with --gpus N; a build is judged for its own machine: "
        "build where the GPUs are, or say instances: {kind: auto} in the spec"
    ),
    "unsupported gpu id": "name GPUs that are there, or say how many the serving machine has with --gpus N",
    "backend supports only CPU device": "write KIND_CPU, or leave the kind out",
    "backend supports only GPU device": "write KIND_GPU, or leave the kind out",
}
"""Words of a refusal → what helps."""
FIELDS: Final = {
    "KIND_GPU": "KIND_GPU",
    "preferred size": "preferred_batch_size",
    "preferred batch size": "preferred_batch_size",
    "instance group": "instance_group",
    "sequence batching": "sequence_batching",
    "max_batch_size": "max_batch_size",
}
"""Words of a refusal → the field whose line it has."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the native backend would refuse, and what it loads and serves wrongly."""
    models = scan_repository(repository)
    yield from _shared_threads(models)
    for model in models:
        if model.problem or (model.config is None and not context.auto_complete):
            continue
        backend = backend_of(model)
        if backend not in READABLE or (backend == "pytorch" and not is_torchscript(model.config or {})):
            yield from _judge(model, backend, {}, context)
            if backend == "tensorrt" and context.auto_complete:
                for version in served_versions(model) or (0,):
                    yield from _plan(model, version)
            continue
        for version in served_versions(model):
            yield from _version(model, backend, version, context)


def _shared_threads(models: Sequence[ModelDir]) -> Iterator[Finding]:
    """Threads that models of one server share, although each configuration says its own number."""
    for backend, parameter, message, remedy in SHARED_THREADS:
        mine = [model for model in models if not model.problem and model.config and backend_of(model) == backend]
        said = {model.name: _parameter(model.config or {}, parameter) for model in mine}
        differ = len(set(said.values())) > 1 if backend == "pytorch" else sum(map(bool, said.values())) > 1
        if differ:
            listed = ", ".join(f"{name} {value or 'none'}" for name, value in said.items())
            yield Finding("warning", f"native.{backend}", f"{parameter}: {listed}; {message}", remedy)


def _parameter(config: Json, key: str) -> str:
    return str(config.get("parameters", {}).get(key, {}).get("string_value", ""))


SHARED_THREADS: Final = (
    (
        "pytorch",
        "INTRA_OP_THREAD_COUNT",
        "PyTorch has one number of threads for all its models in a server, and the first model that is loaded sets it",
        "give all pytorch models the same number",
    ),
    (
        "openvino",
        "INFERENCE_NUM_THREADS",
        "OpenVINO gives the threads of every model the same first cores, so these models wait for each other",
        "leave INFERENCE_NUM_THREADS out for all but one of them, or serve them from servers of their own",
    ),
)
"""Backend, parameter, what happens where models differ in it (openvino: where several have it), and the remedy."""


def _version(model: ModelDir, backend: str, version: int, context: CheckContext) -> Iterator[Finding]:
    path = model_file(model, version)
    if path is None or not path.exists():
        return
    relative = f"{model.name}/{version}/{path.name}"
    if backend == "openvino" and (path.is_dir() or path.suffix in OTHER_FRAMEWORKS):
        message = f"the configuration is judged without {path.name}: only OpenVINO itself reads that format"
        remedy = "convert it to IR: build-repo build MODEL --targets openvino:fp32"
        yield Finding("info", "native.openvino", message, remedy, model=model.name, file=relative)
        yield from _judge(model, backend, {}, context)
        return
    try:
        ports = inspect_ports(path)
    except SpecError as error:
        aborts = " (with auto-complete on, the whole server aborts)" if context.auto_complete else ""
        message = error.message + (aborts if backend == "openvino" else "")
        yield Finding("error", f"native.{backend}.file", message, error.remedy, model=model.name, file=relative)
        return
    for name in ports.missing_data:
        message = f"{path.name} needs {name!r}, which is not there or lies outside its folder"
        remedy = f"put it beside {relative}"
        yield Finding("error", f"native.{backend}.file", message, remedy, model=model.name, file=relative)
    if backend == "onnxruntime" and ports.foreign and not _operations(model.config or {}):
        message = f"Load model from {path.name} failed: {', '.join(ports.foreign[:3])} is not a registered function/op"
        remedy = (
            "put the library of these operators beside the model and name it: model_operations "
            '{ op_library_filename: "LIBRARY.so" }'
        )
        yield Finding("error", f"native.{backend}.file", message, remedy, model=model.name, file=relative)
    if backend == "onnxruntime":
        release = get_release(context.release)
        for severity, rule, message, remedy, _ in file_problems(path.name, ports.ir_version, ports.opset, release):
            yield Finding(severity, f"release.{rule}", message, remedy, model=model.name, file=relative)
    yield from _judge(model, backend, _with_doubt(ports, model.config or {}), context)


def _plan(model: ModelDir, version: int) -> Iterator[Finding]:
    """A TensorRT plan is compared only where TensorRT and a GPU are; elsewhere a finding says what was left out."""
    config = {"name": model.name, **(model.config or {})}
    relative = f"{model.name}/{version}/{plan_name(config)}"
    reason, path = cannot_read(), joined(model.path / str(version), plan_name(config))
    if not reason and not path.is_file():
        return
    plan: Json = {}
    try:
        plan = plan if reason else read_plan(path)
    except BuildError as error:
        reason = error.message
    if reason:
        message = (
            "not compared with its plan: names, types and dims of inputs and outputs, the batch axis and "
            f"max_batch_size, and the profiles; {reason}"
        )
        remedy = (
            "validate it in the target's image on a machine with that GPU, or serve it there: build-repo serve REPO"
        )
        yield Finding("info", "native.tensorrt", message, remedy, model=model.name, file=model.config_file)
        return
    refused = plan_refusals(config, plan, auto_complete=True)
    remedy = f"change config.pbtxt to what {relative} says, or build the model again"
    for message in refused:
        line = _line(model, message)
        yield Finding("error", "native.tensorrt", message, remedy, model=model.name, file=model.config_file, line=line)
    for message in () if refused else plan_warnings(config, plan, auto_complete=True):
        yield Finding(
            "warning", "native.tensorrt", message, "see the message", model=model.name, file=model.config_file
        )


def _operations(config: Json) -> bool:
    """Whether a library of the user's own operators is loaded first."""
    return bool(config.get("model_operations", {}).get("op_library_filename"))


def _judge(model: ModelDir, backend: str, ports: Json, context: CheckContext) -> Iterator[Finding]:
    config = {"name": model.name, **(model.config or {})}
    word = backend if backend in (*READABLE, "tensorrt") else "core"
    auto = context.auto_complete
    refused = refusals(backend, config, ports, auto_complete=auto, gpus=context.gpus, release=context.release)
    # Most models are refused nothing, and cost one judgement.
    whatever_file = refused and refusals(backend, config, {}, auto_complete=False, gpus=context.gpus)
    for message in refused:
        yield Finding(
            # Where a build would be worthless, the server still loads the model.
            "warning" if auto and any(words in message for words in LATER) else "error",
            f"native.{word}",
            message,
            _remedy(message) if message in whatever_file else FILE_REMEDY,
            model=model.name,
            file=model.config_file,
            line=_line(model, message),
        )
    if refused:
        return
    for message in warnings(backend, config, ports, auto_complete=auto):
        remedy = "change what the message names; in a build, the word of the spec that it comes from"
        yield Finding("warning", f"native.{word}", message, remedy, model=model.name, file=model.config_file)


def _remedy(message: str) -> str:
    """What helps against a refusal that does not depend on the model's file."""
    return next(
        (remedy for words, remedy in REMEDIES.items() if words in message),
        "mend the field that the message names; in a build, the word of the spec that it comes from",
    )


def _with_doubt(ports: Ports, config: Json) -> Json:
    """The ports, with sizes of the configuration where the file leaves them open and the runtime may find them."""
    table = copy.deepcopy(ports_json(ports))
    lead = 1 if int(config.get("max_batch_size", 0)) else 0
    dims = {io.get("name"): [int(dim) for dim in io.get("dims", ())] for io in config.get("output", ())}
    for port in table.get("outputs", ()):
        written = [-1] * lead + dims.get(port["name"], [])
        if port["shape"] and len(written) == len(port["shape"]):
            for name, axis in ports.unsure:
                if name == port["name"]:
                    port["shape"][axis] = written[axis]
    return table


def _line(model: ModelDir, message: str) -> int | None:
    """Where the tensor or field stands that the message quotes."""
    quoted = re.findall(r"(?:tensor|input|output|parameter) '([^']+)'", message)
    words = [f'"{quoted[0]}"'] if quoted else [word for said, word in FIELDS.items() if said in message]
    return line_of(model, words[0]) if words else None
