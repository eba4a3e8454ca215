"""The model folders of any Triton repository, as the server would see them; nothing is judged here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.triton_config.text import parse_config

Json = dict[str, Any]

CONFIG_FILE: Final = "config.pbtxt"
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 3000
"""Bytes of one name and of a whole path below the repository."""
KEPT: Final = 2048
"""Parsed configurations: every check scans the repository again."""
BESIDE_VERSIONS: Final = ("warmup", "initial_state", "configs")
"""Folders that the server knows and does not take for versions."""
FILENAMES: Final = {
    "onnxruntime": "model.onnx", "openvino": "model.xml", "tensorrt": "model.plan", "python": "model.py",
    "pytorch": "model.pt", "dali": "model.dali",
}  # fmt: skip
BY_FILE: Final = (
    ("model.savedmodel", "tensorflow"), ("model.graphdef", "tensorflow"), ("model.plan", "tensorrt"),
    ("model.onnx", "onnxruntime"), ("model.xml", "openvino"), ("model.pt", "pytorch"), ("model.py", "python"),
)  # fmt: skip
"""What the server concludes from a file where the configuration says nothing, in its order."""
PLATFORMS: Final = {
    "onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt", "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch", "torch_aoti": "pytorch", "ensemble": "ensemble", "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}  # fmt: skip
RENAME: Final = "rename it: letters, digits, '_', '-' and '.'"
_SHELL: Final = re.compile(r"""^#|[\s;&|()<>"'`$\\]""")
"""What bash does not take for a part of a word."""


@dataclass(frozen=True, slots=True)
class ModelDir:
    """One folder. `config` is None where there is no file or it does not parse; then `problem` has line and reason."""

    name: str
    path: Path
    text: str | None
    config: Json | None
    problem: str = ""
    line: int | None = None
    versions: tuple[int, ...] = field(default=())

    @property
    def config_file(self) -> str:
        """Relative to the repository."""
        return f"{self.name}/{CONFIG_FILE}"


def scan_repository(repository: Path) -> tuple[ModelDir, ...]:
    """Every folder of the root: the server takes each for a model."""
    return tuple(_scan(folder) for folder in sorted(repository.iterdir()) if folder.is_dir())


def broken_in_shell(model: ModelDir) -> str:
    """What of its names breaks the shell command by which Triton's python backend starts a model; nothing is quoted."""
    names = {"the folder": model.name, "the file": str((model.config or {}).get("default_model_filename", ""))}
    for what, name in names.items():
        if found := _SHELL.search(name):
            return f"{found[0]!r} of {what} {name!r} is no part of a name"
    return ""


def backend_of(model: ModelDir) -> str:
    """Triton's word: what the configuration says, else what the file in the newest version says; may be empty."""
    config = model.config or {}
    if config.get("backend"):
        return str(config["backend"])
    if config.get("platform"):
        return PLATFORMS.get(config["platform"], "")
    if config.get("default_model_filename"):
        return next((word for word, name in FILENAMES.items() if name == config["default_model_filename"]), "")
    return _backend_of_file(model) or model.name.partition(".")[2]


def _backend_of_file(model: ModelDir) -> str:
    # The server looks into the folder whose name sorts first, a version or not.
    folder = min((item for item in model.path.iterdir() if item.is_dir()), default=None)
    return next((backend for name, backend in BY_FILE if folder and (folder / name).exists()), "")


def default_filename(model: ModelDir) -> str:
    """The name of the model's file: what the configuration says, else the backend's; empty where none is known."""
    config = model.config or {}
    if config.get("default_model_filename"):
        return str(config["default_model_filename"])
    if not config.get("backend") and not config.get("platform") and not _backend_of_file(model):
        # A backend that only the folder's name says.
        return f"model.{backend_of(model)}"
    return FILENAMES.get(backend_of(model), "")


def served_versions(model: ModelDir) -> tuple[int, ...]:
    """What the version policy loads, of the versions that exist."""
    policy = (model.config or {}).get("version_policy", {"latest": {"num_versions": 1}})
    if "all" in policy or not policy:
        return model.versions
    if "specific" in policy:
        wanted = {int(number) for number in policy["specific"].get("versions", ())}
        return tuple(number for number in model.versions if number in wanted)
    count = int(policy["latest"].get("num_versions", 0))
    return model.versions[-count:] if count else ()


def model_file(model: ModelDir, version: int) -> Path | None:
    """Where the backend looks; None for backends whose file name is not known here."""
    name = default_filename(model)
    # The server writes the version into the path as a number without sign.
    return joined(model.path / str(version % 2**64), name) if name else None


def joined(folder: Path, name: str) -> Path:
    """As the server joins paths: a name that begins with a slash stays below the folder, and a NUL ends it.

    Longer names than a file can have are cut: nothing is there, and Python would raise.
    """
    parts = name.partition("\0")[0].lstrip("/").encode()[:LONGEST_PATH].split(b"/")
    return folder.joinpath(*(os.fsdecode(part[:LONGEST_NAME]) for part in parts))


def is_file(folder: Path, name: str) -> bool:
    """Whether the server would open it as a file."""
    return joined(folder, name).is_file() and not name.endswith("/")


def line_of(model: ModelDir, word: str) -> int | None:
    """The first line of the configuration that has `word`, from 1."""
    lines = enumerate((model.text or "").splitlines(), start=1)
    return next((number for number, line in lines if word in line), None)


def is_utf8(name: str) -> bool:
    """Python keeps other bytes of a file's name as halves of surrogates, which nothing encodes."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def scan_model(folder: Path, text: str | None) -> ModelDir:
    """The folder with this text for its configuration, whatever the file holds; None: there is no file."""
    names = [item.name for item in folder.iterdir() if item.is_dir() and item.name not in BESIDE_VERSIONS]
    versions = tuple(sorted({number for name in names if (number := version_number(name)) is not None}))
    if text is None:
        return ModelDir(folder.name, folder, None, None, versions=versions)
    config, problem, line = _parsed(text)
    return ModelDir(folder.name, folder, text, config, problem, line, versions)


@lru_cache(maxsize=KEPT)
def _parsed(text: str) -> tuple[Json | None, str, int | None]:
    """The configuration, or why there is none and where; nobody changes what is returned."""
    try:
        return parse_config(text), "", None
    except SpecError as error:
        place = re.search(r":(\d+):\d+: ", error.message)
        return None, error.message, int(place[1]) if place else None


def _scan(folder: Path) -> ModelDir:
    if not is_utf8(folder.name):
        problem = (
            "the folder's name is no UTF-8: the server's list of its models is no JSON then, for any of them, and no "
            "client can ask for this one"
        )
        return replace(scan_model(folder, None), problem=problem)
    try:
        return scan_model(folder, (folder / CONFIG_FILE).read_bytes().decode(errors="replace"))
    except FileNotFoundError:
        return scan_model(folder, None)
    except OSError as error:
        return replace(scan_model(folder, None), problem=f"{CONFIG_FILE} cannot be read: {error}")


def version_number(name: str) -> int | None:
    """What the server reads: the number at the beginning, whatever follows; names with a leading zero are ignored."""
    found = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", name)
    return None if not found or (len(name) > 1 and name.startswith("0")) else int(found[1])
