"""What a PyTorch file is, told from its bytes: nothing is unpickled and torch is not imported."""

from __future__ import annotations

import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from builder.archives import UNREADABLE, member_names
from builder.pickles import imported_names, pickle_head

Kind = Literal["torchscript", "exported", "state_dict", "pickle", "safetensors", "legacy", "package"]

LEGACY_MAGIC: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""How `torch.save` began its files before it wrote zip archives."""
LEGACY_HEADERS: Final = 3
"""Magic number, protocol and system, each a pickle of its own, before the content."""
HEADER_LIMIT: Final = 100_000_000
"""The largest header that the safetensors format allows."""
HARMLESS: Final = ("torch", "collections", "numpy", "_codecs", "__builtin__", "builtins", "copyreg")
"""Modules whose names occur in the pickle of a plain state dict."""
MODULE_PARTS: Final = ("torch.nn.modules", "torch.nn.quantized", "torch.fx")
"""Parts of torch whose names mean that a whole module was pickled."""


def torch_kind(path: Path) -> Kind | None:
    """What kind of PyTorch file this is; None where it is none."""
    if not path.is_file():
        return None
    status = path.stat()
    return _kind(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _kind(path: Path, *identity: int) -> Kind | None:  # noqa: ARG001 - a changed file is another question
    """Several rows ask about the same file, and reading a pickle's names takes a while."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[:2] == b"PK":
        return _archive_kind(path)
    if pickle_head(path):
        return "legacy" if head[2:14] == LEGACY_MAGIC and not foreign_names(path) else "pickle"
    return "safetensors" if read_header(path) is not None else None


def _archive_kind(path: Path) -> Kind | None:
    names = member_names(path)
    if any(name.endswith("/.data/extern_modules") for name in names):
        return "package"
    if any(name.endswith("archive_format") for name in names) or "serialized_exported_program.json" in names:
        return "exported"
    pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    if not pickles:
        return None
    if any(name.endswith("constants.pkl") for name in names) or any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    return "pickle" if foreign_names(path) else "state_dict"


def foreign_names(path: Path) -> tuple[str, ...]:
    """Classes and functions in the file's pickle that a plain state dict does not have, as `module.name`."""
    try:
        found = _archived_names(path) if zipfile.is_zipfile(path) else _plain_names(path)
    except (*UNREADABLE, StopIteration):
        return ()
    return tuple(name for name in found if not _harmless(name))


def _archived_names(path: Path) -> tuple[str, ...]:
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1)
        return imported_names(archive.read(member))


def _plain_names(path: Path) -> tuple[str, ...]:
    """A plain pickle, or the fourth of those that old `torch.save` wrote one after another."""
    content = pickle_head(path)
    if content[2:14] != LEGACY_MAGIC:
        return imported_names(content)
    with path.open("rb") as stream:
        for _ in range(LEGACY_HEADERS):
            imported_names(stream)
        return imported_names(stream)


def _harmless(name: str) -> bool:
    return name.split(".", 1)[0] in HARMLESS and not name.startswith(MODULE_PARTS)


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file, with its length under the key ` start`; None where it is none."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 10 or not 2 <= length <= min(HEADER_LIMIT, size - 8):  # noqa: PLR2004 - 8 bytes of length, "{}"
            return None
        if stream.read(1) != b"{":
            return None
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return None
    return {**header, " start": 8 + length}
