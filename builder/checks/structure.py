"""Folders, versions, file names, and a configuration that the release can read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.findings import Finding, Severity
from builder.native_rules import warm_ups
from builder.releases import fields_unknown, new_fields
from builder.scan import (
    BESIDE_VERSIONS,
    CONFIG_FILE,
    RENAME,
    ModelDir,
    backend_of,
    is_file,
    is_utf8,
    joined,
    line_of,
    model_file,
    scan_repository,
    served_versions,
)
from builder.tensors import BY_TRITON
from builder.triton_config.text import model_config_proto, parse_message

if TYPE_CHECKING:
    from builder.checks import CheckContext

_BYTES = {"bool": 1, "8": 1, "16": 2, "32": 4, "64": 8}


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """Every model folder against what the server expects of it."""
    for path in sorted(repository.iterdir()):
        if _leads_nowhere(path):
            message = f"failed to stat file {path.name}: the link leads nowhere, and the server loads no model at all"
            yield Finding(
                "error", "structure.link", message, "remove it, or put there what it leads to", file=path.name
            )
    for model in scan_repository(repository):
        yield from _config(model, context)
        yield from _links(model)
        yield from _versions(model)
        if model.config is not None:
            yield from _model_files(model)
            yield from _labels(model)
            yield from _warm_up(model)
            yield from _initial_states(model)


def _found(model: ModelDir, severity: Severity, rule: str, message: str, remedy: str, **where: Any) -> Finding:  # noqa: ANN401
    return Finding(severity, f"structure.{rule}", message, remedy, model=model.name, **where)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _links(model: ModelDir) -> Iterator[Finding]:
    """The server looks at everything beside the configuration, needed or not."""
    for path in sorted(filter(_leads_nowhere, model.path.iterdir())):
        file = f"{model.name}/{path.name}"
        message = f"failed to stat file {file}: the link leads nowhere"
        yield _found(model, "error", "link", message, "remove it, or put there what it leads to", file=file)


def _config(model: ModelDir, context: CheckContext) -> Iterator[Finding]:
    if model.problem:
        remedy = text_remedy(model.problem) if is_utf8(model.name) else RENAME
        yield _found(model, "error", "config", model.problem, remedy, file=model.config_file, line=model.line)
    elif model.config is None:
        severity: Severity = "info" if context.auto_complete else "error"
        message = f"there is no {CONFIG_FILE}" + ("" if context.auto_complete else ", and auto-complete is off")
        yield _found(model, severity, "config", message, f"write {model.config_file}", file=model.config_file)
    else:
        name = model.config.get("name", model.name)
        if name != model.name:
            message = f"the configuration is named {name!r}, the folder {model.name!r}"
            line = line_of(model, "name:")
            yield _found(model, "error", "name", message, "give both one name", file=model.config_file, line=line)
        yield from _fields(model, context)


def text_remedy(problem: str) -> str:
    """What helps against a text that does not parse: the name that was probably meant, where it is one."""
    said = re.search(r'(Message|Enum) type "([\w.]+)" has no (?:field|value) named "?(\w+)', problem)
    known = _known_names(*said.groups()[:2]) if said else []
    if said is None or not known:
        slash = "; comments begin with #" if "got /" in problem else ""
        return f"mend it: Triton reads the file with the same grammar{slash}"
    given = said.group(3)
    near = [name for name in known if name.endswith(f"_{given.upper()}")]
    near = near or difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    meant = f"write {near[0]}, if that is meant; " if near else ""
    return f"{meant}there are {', '.join(sorted(known))}"


def _known_names(kind: str, where: str) -> list[str]:
    """The fields of a message, or the values of an enum; empty where the line quotes the words of no such type."""
    pool = model_config_proto().DESCRIPTOR.pool
    try:
        if kind == "Message":
            return [field.name for field in pool.FindMessageTypeByName(where).fields]
        return [value.name for value in pool.FindEnumTypeByName(where).values]
    except KeyError:
        return []


def _fields(model: ModelDir, context: CheckContext) -> Iterator[Finding]:
    unknown = set(fields_unknown(context.release))
    since = {item.field: item.since for item in new_fields()}
    for field in sorted(_used(parse_message(model.text or "")) & unknown) if unknown else ():
        word = field.partition(".")[2]
        message = f"Triton {context.release} does not know the field {word!r} of {field.partition('.')[0]}"
        remedy = f"remove it, or use Triton {since[field]} or newer"
        yield _found(model, "error", "field", message, remedy, file=model.config_file, line=line_of(model, word))


def _used(message: Any) -> set[str]:  # noqa: ANN401 - a protobuf message
    """`Message.field` of every field that is set, at every depth."""
    used = set()
    for field, value in message.ListFields():
        used.add(f"{message.DESCRIPTOR.name}.{field.name}")
        if field.message_type is None:
            continue
        parts = list(value.values()) if hasattr(value, "values") else value if hasattr(value, "__len__") else [value]
        for part in parts:
            if hasattr(part, "ListFields"):
                used |= _used(part)
    return used


def _versions(model: ModelDir) -> Iterator[Finding]:
    for folder in sorted(item for item in model.path.iterdir() if item.is_dir()):
        if folder.name in BESIDE_VERSIONS or folder.name in map(str, model.versions):
            continue
        zeros = folder.name.isascii() and folder.name.isdigit()
        why = "it has leading zeros" if zeros else "it is no number"
        remedy = f"rename it to {int(folder.name)}" if zeros else "move it out of the model's folder"
        message = f"Triton ignores the folder {folder.name!r}: {why}"
        yield _found(model, "warning", "version", message, remedy, file=f"{model.name}/{folder.name}")
    if 0 in model.versions:
        message = "Triton serves the folder 0, yet numbers start at 1: a client that asks for version 0 gets the newest"
        yield _found(model, "warning", "version", message, "rename it to 1", file=f"{model.name}/0")
    for number in model.versions:
        if not -(2**63) <= number < 2**63:
            message = f"the folder {number} is too large a number for a version: the whole server ends at it"
            yield _found(model, "error", "version", message, "rename it", file=f"{model.name}/{number}")
    wanted = ((model.config or {}).get("version_policy", {}).get("specific") or {}).get("versions", ())
    if not served_versions(model):
        message = "no version is available: there is no folder that the version policy loads"
        place = f"put the model file into {model.name}/{wanted[0] if wanted else 1}/"
        have = ", ".join(map(str, model.versions))
        remedy = f"change version_policy (the folders are {have}), or {place}" if have else place
        yield _found(model, "error", "version", message, remedy, file=model.name)
    for number in sorted({int(version) for version in wanted} - set(model.versions)):
        message = f"version_policy asks for version {number}, which is not there"
        line = line_of(model, "version_policy")
        # The server logs it, and serves the others.
        remedy = "take it out of the policy"
        yield _found(model, "warning", "version", message, remedy, file=model.config_file, line=line)


def _model_files(model: ModelDir) -> Iterator[Finding]:
    if backend_of(model) in ("ensemble", ""):
        return
    for version in served_versions(model):
        yield from _engine_files(model, version)
        path = model_file(model, version)
        # Where every GPU of the server has an engine of its own, nothing looks for the default file.
        if path is None or path.exists() or (model.config or {}).get("cc_model_filenames"):
            continue
        if not path.parent.is_dir():
            message = f"the server reads a version {version} and finds no folder {model.name}/{version}"
            yield _found(model, "error", "file", message, f"rename the folder to {version}", file=model.name)
            continue
        relative = f"{model.name}/{version}/{path.name}"
        held = ", ".join(sorted(item.name for item in path.parent.iterdir())[:5]) or "nothing"
        message = (
            f"failed to stat file {relative}: the {backend_of(model)} backend looks for it; the folder holds {held}"
        )
        yield _found(model, "error", "file", message, "rename the file, or set default_model_filename", file=relative)


def _engine_files(model: ModelDir, version: int) -> Iterator[Finding]:
    """The file of each compute capability."""
    for capability, name in sorted((model.config or {}).get("cc_model_filenames", {}).items()):
        relative = f"{model.name}/{version}/{name}"
        if not joined(model.path / str(version), name).exists():
            message = f"failed to stat file {relative}: cc_model_filenames names it for compute capability {capability}"
            line = line_of(model, f'"{name}"')
            severity: Severity = "error" if backend_of(model) == "tensorrt" else "warning"
            yield _found(model, severity, "file", message, "put it there, or take it out", file=relative, line=line)


def _labels(model: ModelDir) -> Iterator[Finding]:
    for output in (model.config or {}).get("output", ()):
        name = output.get("label_filename")
        if name and not is_file(model.path, name):
            message = f"output {output.get('name', '')!r} names the label file {name!r}, which is not there"
            line = line_of(model, name)
            remedy = f"put it at {model.name}/{name}, one label a line"
            yield _found(model, "error", "labels", message, remedy, file=model.config_file, line=line)


def _warm_up(model: ModelDir) -> Iterator[Finding]:
    config = model.config or {}
    for request in config.get("model_warmup", ()):
        if not int(request.get("batch_size", 0)):
            message = f"warm-up {request.get('name', '')!r} has batch_size 0: Triton skips it"
            line = line_of(model, "model_warmup")
            yield _found(model, "warning", "warmup", message, "set batch_size: 1", file=model.config_file, line=line)
    for request in warm_ups(config):
        for name, item in sorted(request.get("inputs", {}).items()):
            message = _warm_up_problem(model, item)
            if message:
                line = line_of(model, str(item.get("input_data_file") or "model_warmup"))
                message = f"warm-up {request.get('name', '')!r}, input {name!r}: {message}"
                yield _found(
                    model, "error", "warmup", message, "write the file again", file=model.config_file, line=line
                )


def _warm_up_problem(model: ModelDir, item: dict[str, Any]) -> str:
    dims = [int(dim) for dim in item.get("dims", ())]
    if -1 in dims:
        return "warmup setting expects all variable-size dimensions are specified"
    name = item.get("input_data_file")
    return _data_problem(model, "warmup", str(name), item) if name is not None else ""


def _data_problem(model: ModelDir, folder: str, name: str, item: dict[str, Any]) -> str:
    """A file of raw values in a folder beside the configuration: not there, or shorter than type and dims say."""
    path = joined(model.path / folder, name)
    if path.is_dir():
        return f"{model.name}/{folder}/{name} is a folder: the whole server ends at it"
    if not is_file(model.path / folder, name):
        return f"{model.name}/{folder}/{name} is not there"
    dtype = BY_TRITON.get(item.get("data_type", ""))
    if dtype is None or dtype.numpy == "string":
        return ""
    width = next(size for tail, size in _BYTES.items() if dtype.numpy.endswith(tail))
    expected, size = math.prod(int(dim) for dim in item.get("dims", ())) * width, path.stat().st_size
    return f"{folder} setting expects {expected} bytes, but {name} only has {size} bytes" if size < expected else ""


def _initial_states(model: ModelDir) -> Iterator[Finding]:
    for state in (model.config or {}).get("sequence_batching", {}).get("state", ()):
        for first in state.get("initial_state", ()):
            name = str(first.get("data_file") or "")
            problem = _data_problem(model, "initial_state", name, first) if "data_file" in first else ""
            if problem:
                message = f"state {state.get('input_name', '')!r}: {problem}"
                line = line_of(model, name)
                yield _found(
                    model, "error", "initial_state", message, "write the file again", file=model.config_file, line=line
                )
