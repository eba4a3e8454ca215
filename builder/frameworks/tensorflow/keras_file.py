"""What a Keras file is, told from its bytes: `.keras` archives and HDF5 files; nothing in them is deserialised."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

from builder.archives import UNREADABLE, member_names
from builder.errors import SpecError
from builder.onnx_tools.reading import short

HDF5: Final = b"\x89HDF\r\n\x1a\n"
CONFIG: Final = "config.json"
METADATA: Final = "metadata.json"
WEIGHTS: Final = "model.weights.h5"
ZIP_HEADER: Final = 30
ZIP_NAME_LENGTH: Final = 26
"""Bytes of a member's header before its name, and the place of the lengths of name and extra field in it."""
OWN_MODULES: Final = ("keras", "tf_keras", "builtins", "tensorflow.python.keras", "tensorflow.keras")
"""Modules that a Keras file may name; any other would be imported, which runs its code."""
KERAS_WORDS: Final = {"model_config", "layer_names", "keras_version", "layers", "_layer_checkpoint_dependencies"}
"""Attributes and groups at the root of Keras's HDF5 files: full models, and weights of Keras 2 and 3."""
LARGEST_CONFIG: Final = 200_000_000

Kind = Literal["archive", "hdf5"]


@dataclass(frozen=True, slots=True)
class KerasFile:
    """`config` is None where the file holds weights only; `version` is that of the Keras that wrote it."""

    kind: Kind
    config: Any = None
    version: str = ""
    entries: tuple[str, ...] = field(default=())

    @property
    def is_keras_2(self) -> bool:
        return self.version.startswith(("1.", "2."))


def keras_kind(path: Path) -> Kind | None:
    """By the magic number, and the members of an archive; h5py is asked only when it is there."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        head = stream.read(8)
    if head == HDF5:
        return "hdf5" if _is_keras_hdf5(path) else None
    if head[:2] != b"PK":
        return None
    names = member_names(path)
    return "archive" if CONFIG in names and any(name.startswith("model.weights") for name in names) else None


def _is_keras_hdf5(path: Path) -> bool:
    """A full model, or weights in one of Keras's three layouts; without h5py any HDF5 file may be one."""
    try:
        import h5py
    except (ImportError, OSError):
        return True
    try:
        with h5py.File(path, "r") as file:
            return bool({*file.attrs, *file} & KERAS_WORDS)
    except OSError:
        return True


def read_keras(path: Path) -> KerasFile:
    """The configuration as JSON.

    Raises:
        SpecError: damaged, or h5py is missing.
    """
    try:
        return _read_archive(path) if keras_kind(path) == "archive" else _read_hdf5(path)
    except (*UNREADABLE, KeyError) as error:
        raise SpecError(
            f"{path.name} is not a readable Keras file: {short(error)} ({path.stat().st_size} bytes)",
            remedy="the file is cut off or damaged: copy or download it again",
        ) from error


def _read_archive(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(CONFIG).file_size > LARGEST_CONFIG:
            raise ValueError(f"{CONFIG} is too large")
        config = json.loads(archive.read(CONFIG))
        metadata = json.loads(archive.read(METADATA)) if METADATA in archive.namelist() else {}
        return KerasFile("archive", config, str(metadata.get("keras_version", "")), tuple(archive.namelist()))


def _read_hdf5(path: Path) -> KerasFile:
    try:
        import h5py
    except (ImportError, OSError) as error:
        raise SpecError(f"{path.name}: h5py is missing: {short(error)}", remedy="pip install h5py") from error
    with h5py.File(path, "r") as file:
        version = _text(file.attrs.get("keras_version", ""))
        if "model_config" not in file.attrs:
            return KerasFile("hdf5", None, version, tuple(file))
        return KerasFile("hdf5", json.loads(_text(file.attrs["model_config"])), version, tuple(file))


def _text(value: Any) -> str:  # noqa: ANN401 - bytes or str
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def count_weights(path: Path) -> int | None:
    """Numbers in the file's weights, without the optimiser's and random generators'; None where none can be counted."""
    try:
        import h5py
    except (ImportError, OSError):
        return None
    total = 0

    def visit(name: str, item: Any) -> None:  # noqa: ANN401 - h5py.Group or Dataset
        nonlocal total
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer") and "seed_generator" not in name:
            total += int(item.size)

    with _weights(path) as content:
        if content is None:
            return None
        with h5py.File(content, "r") as file:
            file.visititems(visit)
    return total


@contextmanager
def _weights(path: Path) -> Iterator[Path | io.RawIOBase | None]:
    """The HDF5 file itself, or the one that lies uncompressed in an archive, as Keras writes it."""
    if keras_kind(path) == "hdf5":
        yield path
        return
    with zipfile.ZipFile(path) as archive:
        member = {item.filename: item for item in archive.infolist()}.get(WEIGHTS)
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        yield None
        return
    with path.open("rb") as stream:
        stream.seek(member.header_offset + ZIP_NAME_LENGTH)
        lengths = struct.unpack("<HH", stream.read(4))
        yield _Part(stream, member.header_offset + ZIP_HEADER + sum(lengths), member.file_size)


class _Part(io.RawIOBase):
    """A part of a file as a file: zipfile's own reads from the start again for each step back."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer
        self._stream.seek(self._start + self._at)
        found = self._stream.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _parts(config: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def lambda_layers(config: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    """Names of layers that hold Python bytecode."""
    found = []
    for part in _parts(config):
        inner = part.get("config")
        inner = inner if isinstance(inner, dict) else {}
        if part.get("class_name") == "__lambda__":
            found.append("lambda")
        elif part.get("class_name") == "Lambda" and (
            inner.get("function_type") == "lambda" or not isinstance(inner.get("function"), str)
        ):
            found.append(str(inner.get("name", "lambda")))
    named = [name for name in found if name != "lambda"]
    return tuple(sorted(set(named or found)))


def foreign_classes(config: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    """Classes and functions from modules that are not Keras's, as `module.name`."""
    found = set()
    for part in _parts(config):
        module, name = part.get("module"), part.get("class_name")
        if isinstance(module, str) and isinstance(name, str) and not _is_own(module):
            found.add(f"{module}.{name}")
        elif ">" in str(part.get("registered_name") or ""):
            found.add(str(part["registered_name"]).replace(">", "."))
    return tuple(sorted(found))


def _is_own(module: str) -> bool:
    return any(module == own or module.startswith(f"{own}.") for own in OWN_MODULES)
