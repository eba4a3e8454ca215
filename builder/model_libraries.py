"""The shared libraries that a model is loaded with: its backend's, its own, and the user's rule of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from builder.releases import get_release
from builder.scan import ModelDir, served_versions

Json = dict[str, Any]
Problem = tuple[str, str, str]
"""A word of the line, the server's words, the remedy."""

BACKENDS: Final = (
    "dali", "fil", "identity", "onnxruntime", "openvino", "python", "pytorch", "repeat", "square", "tensorrt",
    "tensorrtllm", "vllm",
)  # fmt: skip
"""What the containers of a release bring."""
LIBRARY_HEAD: Final = b"\x7fELF"
TENSORFLOW_UNTIL: Final = "25.02"


def _held(model: ModelDir) -> set[str]:
    """Names of the files beside the configuration and in the version folders."""
    return {item.name for folder in _folders(model) if folder.is_dir() for item in folder.iterdir()}


def _folders(model: ModelDir) -> tuple[Path, ...]:
    """Where the server looks for a model's own libraries, in its order."""
    return (*(model.path / str(version) for version in served_versions(model)), model.path)


def library_problems(model: ModelDir, config: Json, word: str, release: str) -> Iterator[Problem]:
    """The backend's shared library: in the server, in the model's folder or in a version's."""
    own = _held(model)
    runtime = config.get("runtime", "")
    library = f"libtriton_{word}.so"
    if word not in backends_of(release) and not {library, runtime or library} & own:
        text = (
            f"unable to find backend library for backend '{word}', try specifying runtime on the model configuration."
        )
        gone = " (TensorFlow's is gone since 25.03)" if word == "tensorflow" else ""
        yield word, text, f"Triton {release} brings {', '.join(backends_of(release))}{gone}; put {library} beside it"
    elif runtime and runtime != library and not (runtime in own if runtime.endswith(".so") else word == "pytorch"):
        text = f"unable to find backend library '{runtime}' for model '{model.name}'"
        yield "runtime", text, f"remove the line runtime: the server takes {library} by itself"
    wanted = runtime if runtime.endswith(".so") else library
    if (broken := _broken_library(folder / wanted for folder in _folders(model))) is not None:
        text = f"unable to load shared library: {broken.relative_to(model.path.parent)} is none"
        yield wanted, text, "put the compiled library there, or take the file away"


def batch_strategy_problems(model: ModelDir, config: Json) -> Iterator[Problem]:
    """The user's own rule of what goes into a batch: a library that the server loads with the model."""
    word = "TRITON_BATCH_STRATEGY_PATH"
    given = config.get("parameters", {}).get(word)
    path = str((given or {}).get("string_value", ""))
    if given is not None and not path.startswith("/"):
        text = f"Batching library path not found: {path}. It is looked for where the server was started"
        yield word, text, "write the library's full path on the machine that serves, or remove the parameter"
        return
    paths = [Path(path)] if path else [folder / "batchstrategy.so" for folder in _folders(model)]
    if (broken := _broken_library(paths)) is not None:
        text = f"unable to load shared library: {broken.name} is none"
        yield (word if path else ""), text, f"compile it again, or remove {broken.name}"


def _broken_library(paths: Iterable[Path]) -> Path | None:
    """The first that is there, where it is no shared library."""
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        return None
    with found.open("rb") as stream:
        return None if stream.read(len(LIBRARY_HEAD)) == LIBRARY_HEAD else found


def backends_of(release: str) -> tuple[str, ...]:
    """The backends of a release's containers."""
    return (*BACKENDS, "tensorflow") if get_release(release).release <= TENSORFLOW_UNTIL else BACKENDS
