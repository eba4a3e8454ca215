"""A light copy of a repository that the embedded server can load whatever release the original is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from builder.releases import EMBEDDED_SERVER, fields_unknown
from builder.servers.step_packages import FACTS_FILE, PackagesFor, step_packages
from builder.servers.step_packages import FOLDER as PACKAGES_FOLDER

if TYPE_CHECKING:
    from google.protobuf.message import Message

CONFIG_FILE: Final = "config.pbtxt"
PYTHON_FILE: Final = "model.py"
ENVIRONMENT: Final = "EXECUTION_ENV_PATH"
FOREIGN: Final = ("tensorrt", "torch_aoti", "tensorflow", "dali", "fil", "vllm", "tensorrtllm", "identity")
"""Backends that the embedded server does not have."""
AGENTS: Final = ("ModelConfig", "model_repository_agents")
"""The embedded server has no agents, and refuses a model that names one."""
FOREIGN_PLATFORMS: Final = {
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "torch_aoti": "torch_aoti",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}
FOREIGN_FILES: Final = {
    "model.plan": "tensorrt",
    "model.pt": "pytorch",
    "model.pt2": "torch_aoti",
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.dali": "dali",
}


def live_copy(
    repository: Path,
    dest: Path,
    lacking: Mapping[str, str] = MappingProxyType({}),
    packages: PackagesFor | None = None,
) -> tuple[str, ...]:
    """Copy what the embedded server can load into `dest`: links to artefacts, configurations rewritten where needed.

    `lacking` are backends that the installed runtime does not have, with the reason. `packages` finds what steps in
    Python import, for the server's own Python.
    Returns what the copy does not check, one text each: `MODEL: FIELD` for a field newer than the embedded server,
    `MODEL: …` with the reason for a model left out. An ensemble goes with the models it needs.
    """
    folders = sorted(entry for entry in repository.iterdir() if entry.is_dir())
    configs = {folder.name: _read_config(folder) for folder in folders}
    left_out = {
        folder.name: reason for folder in folders if (reason := _foreign(folder, configs[folder.name], lacking))
    }
    own: dict[str, dict[str, Path]] = {}
    for folder in folders if packages else ():
        if folder.name not in left_out and packages is not None:
            own[folder.name], reason = step_packages(folder, packages)
            left_out |= {folder.name: reason} if reason else {}
    _leave_out_ensembles(configs, left_out)
    dest.mkdir(parents=True, exist_ok=True)
    unchecked = [f"{model}: {reason}" for model, reason in left_out.items()]
    for folder in folders:
        if folder.name not in left_out:
            removed = _copy_model(folder, dest / folder.name, configs[folder.name], own.get(folder.name, {}))
            unchecked += [f"{folder.name}: {field}" for field in removed]
    return tuple(sorted(unchecked))


def _read_config(folder: Path) -> Message | None:
    """The parsed configuration; None where there is none, or none that parses: the server will say so itself."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        config: Message = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, ValueError, text_format.ParseError):
        return None
    return config


def _foreign(folder: Path, config: Message | None, lacking: Mapping[str, str]) -> str:
    """Why the embedded server cannot load the model; empty where it can."""
    backend = getattr(config, "backend", "") or FOREIGN_PLATFORMS.get(getattr(config, "platform", ""), "")
    if not backend and not getattr(config, "platform", ""):
        names = {file.name for version in folder.iterdir() if version.is_dir() for file in version.iterdir()}
        backend = next((word for name, word in FOREIGN_FILES.items() if name in names), "")
    if backend == "pytorch" and getattr(config, "platform", "") == "torch_aoti":
        backend = "torch_aoti"
    if backend == "pytorch" and getattr(config, "runtime", ""):
        return "the embedded server has no pytorch backend for Python code, only for TorchScript"
    if _has_tensorrt(config):
        return "the embedded server has no TensorRT inside its onnxruntime backend"
    return f"the embedded server has no {backend} backend" if backend in FOREIGN else lacking.get(backend, "")


def _has_tensorrt(config: Message | None) -> bool:
    """TensorRT as ONNX Runtime's accelerator; any other GPU accelerator leaves the model as it is."""
    optimization = getattr(config, "optimization", None)
    named = optimization.execution_accelerators.gpu_execution_accelerator if optimization else ()
    return any(item.name == "tensorrt" for item in named)


def _leave_out_ensembles(configs: dict[str, Message | None], left_out: dict[str, str]) -> None:
    """An ensemble of a model that is left out is left out too, and so on upwards."""
    found = True
    while found:
        found = False
        for name, config in configs.items():
            missing = next((step for step in _steps(config) if step in left_out), None)
            if missing and name not in left_out:
                left_out[name] = f"it needs {missing}, which is left out"
                found = True


def _steps(config: Message | None) -> list[str]:
    scheduling = getattr(config, "ensemble_scheduling", None)
    return [step.model_name for step in scheduling.step] if scheduling else []


def _copy_model(folder: Path, dest: Path, config: Message | None, packages: Mapping[str, Path]) -> tuple[str, ...]:
    from google.protobuf import text_format

    removed = _remove_new_fields(config) if config is not None else ()
    if config is not None and any(folder.glob(f"*/{FACTS_FILE}")):
        removed += _remove_environment(config)
    dest.mkdir()
    for entry in folder.iterdir():
        if config is not None and removed and entry.name == CONFIG_FILE:
            (dest / CONFIG_FILE).write_text(text_format.MessageToString(config), encoding="utf-8")
        elif (entry / PYTHON_FILE).is_file():
            _link_files(entry, dest / entry.name, packages.get(entry.name))
        else:
            (dest / entry.name).symlink_to(entry.resolve())
    return removed


def _link_files(folder: Path, dest: Path, packages: Path | None = None) -> None:
    """Folders of its own for a model of Python code: what the interpreter writes there stays out of the repository."""
    dest.mkdir()
    if packages is not None:
        (dest / PACKAGES_FOLDER).symlink_to(packages)
    for entry in folder.iterdir():
        if packages is not None and entry.name == PACKAGES_FOLDER:
            continue
        if entry.is_dir():
            _link_files(entry, dest / entry.name)
        else:
            (dest / entry.name).symlink_to(entry.resolve())


def _remove_new_fields(config: Message) -> tuple[str, ...]:
    """Clear, in place, what the embedded server has not: newer fields, agents. Their names, without the message's."""
    unknown = {tuple(field.split(".")) for field in fields_unknown(EMBEDDED_SERVER)} | {AGENTS}
    removed = []
    for message in _messages(config):
        for descriptor, _ in message.ListFields():
            if (message.DESCRIPTOR.name, descriptor.name) in unknown:
                message.ClearField(descriptor.name)
                removed.append(descriptor.name)
    return tuple(dict.fromkeys(removed))


def _remove_environment(config: Message) -> tuple[str, ...]:
    """An environment packed for the release's Python: the step gets packages for the embedded server's in its place."""
    parameters: Any = getattr(config, "parameters", {})
    if ENVIRONMENT not in parameters:
        return ()
    del parameters[ENVIRONMENT]
    return (ENVIRONMENT,)


def _messages(message: Message) -> list[Message]:
    """The message and every one inside it, maps left aside: no new field lies in one."""
    found = [message]
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        inner = [value] if hasattr(value, "ListFields") else list(value)
        for item in inner:
            found += _messages(item)
    return found
