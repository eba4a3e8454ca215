"""What a PyTorch file is, told from its bytes: nothing is unpickled and torch is not imported."""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal["torchscript", "exported", "state_dict", "pickle", "safetensors", "legacy"]

LEGACY_MAGIC: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""How `torch.save` began its files before it wrote zip archives."""
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
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[:2] == b"PK":
        return _archive_kind(path)
    if head[:1] == b"\x80" and len(head) > 2 and head[1] in range(2, 6):  # noqa: PLR2004 - pickle protocols 2 to 5
        return "legacy" if head[2:14] == LEGACY_MAGIC else "pickle"
    return "safetensors" if read_header(path) is not None else None


def archive_names(path: Path) -> tuple[str, ...]:
    """The members of a zip archive; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, EOFError):
        return ()


def _archive_kind(path: Path) -> Kind | None:
    names = archive_names(path)
    if any(name.endswith("archive_format") for name in names) and any("/models/" in name for name in names):
        return "exported"
    pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    if not pickles:
        return None
    if any(name.endswith("constants.pkl") for name in names) or any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    return "pickle" if foreign_names(path) else "state_dict"


def foreign_names(path: Path) -> tuple[str, ...]:
    """Classes and functions in the archive's pickle that a plain state dict does not have, as `module.name`."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1)
            content = archive.read(member)
        found = _globals(content)
    except (ValueError, zipfile.BadZipFile, StopIteration, OSError, EOFError):
        return ()
    return tuple(name for name in found if not _harmless(name))


def _harmless(name: str) -> bool:
    return name.split(".", 1)[0] in HARMLESS and not name.startswith(MODULE_PARTS)


def _globals(content: bytes) -> list[str]:
    """Names a pickle would import, in order of appearance."""
    names: list[str] = []
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            names.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
            names.append(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
    return list(dict.fromkeys(names))


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
