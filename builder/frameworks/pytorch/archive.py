"""Look through a `torch.export` archive before PyTorch opens it, which would run code that the file brings."""

from __future__ import annotations

import builtins
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from builder.archives import UNREADABLE
from builder.errors import SpecError
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.reading import short

HARMLESS_CALLS: Final = ("abs", "bool", "float", "int", "max", "min", "pow", "round")
"""Python's own functions that a size may be computed with; PyTorch evaluates sizes as Python text."""
PICKLED: Final = ("custom_obj", "opaque_obj")
"""Constants that PyTorch opens without any restraint begin so."""


def check_archive(path: Path) -> None:
    """Refuse an archive whose opening would run code.

    Raises:
        SpecError: it holds a pickle of more than tensors, or a size that is more than arithmetic.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                _check_member(archive, name, path)
    except UNREADABLE as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> SpecError:
    """The refusal of a file that PyTorch cannot open; its own words."""
    return SpecError(
        f"{path.name} is not a readable torch.export program: {short(error)}",
        remedy="the file is cut off, or was written by another version of PyTorch: save it again with "
        "torch.export.save",
    )


def _check_member(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    file = name.rsplit("/", 1)[-1]
    if file.startswith(PICKLED):
        raise _refusal(path, f"the member {name} is a pickled object")
    if name.endswith(".json"):
        content = archive.read(name)
        if content[:1] != b"{":
            return
        for text in _expressions(json.loads(content)):
            if not is_arithmetic(text):
                raise _refusal(path, f"the size {text[:60]!r} is more than arithmetic")
    elif name.endswith(".pt") or "/data/weights/" in f"/{name}" or "/data/constants/" in f"/{name}":
        content = archive.read(name)
        if content[:2] == b"PK" or (name.endswith(".pt") and content):
            _check_tensors(content, name, path)


def _check_tensors(content: bytes, name: str, path: Path) -> None:
    """What opens as tensors alone opens without running code."""
    torch = import_torch()
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refusal(path, f"the member {name} is a pickle of more than tensors") from error


def _refusal(path: Path, what: str) -> SpecError:
    return SpecError(
        f"{path.name}: {what}: opening it can run any code, so it is refused",
        remedy="export the program without example inputs and constants that are no tensors",
    )


def _expressions(data: Any) -> Iterator[str]:  # noqa: ANN401 - parsed JSON
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "expr_str" and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)
    elif isinstance(data, list):
        for item in data:
            yield from _expressions(item)


def is_arithmetic(text: str) -> bool:
    """Numbers, named symbols and functions of sizes; none of Python's own functions, no attributes."""
    bare = re.sub(r"'\w+'", "", text)
    attribute = re.search(r"[^\W\d]\w*\s*\.|\.\s*[^\W\d]", bare)
    if "__" in text or attribute or not re.fullmatch(r"[\w\s()+\-*/%,<>=&|~.]*", bare):
        return False
    words = re.findall(r"[^\W\d]\w*", bare)
    return not any(hasattr(builtins, word) and word not in (*HARMLESS_CALLS, "True", "False") for word in words)
