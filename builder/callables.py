"""`module:callable` → what it returns."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.errors import SpecError
from builder.onnx_tools.reading import short


def use_import_root(root: str) -> None:
    """Put the user's folder first on the import path."""
    if root and root not in sys.path:
        sys.path.insert(0, root)


def call_named(model: str, arguments: str, import_root: str) -> Any:  # noqa: ANN401 - whatever it returns
    """Import the callable and call it with the arguments (JSON).

    Raises:
        SpecError: it cannot be imported, or raises.
    """
    use_import_root(import_root)
    call = _find(model, import_root)
    keywords = json.loads(arguments)
    try:
        return call(**keywords)
    except Exception as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
        raise SpecError(
            f"model: {model}({shown}) raised {type(error).__name__}: {short(error)}",
            remedy="correct source: args: in the spec, or the callable",
        ) from error


def _find(model: str, import_root: str) -> Callable[..., Any]:
    module_name, _, attributes = model.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise SpecError(
            f"model: cannot import {module_name!r}: {type(error).__name__}: {short(error)}",
            remedy=f"looked in {Path(import_root or '.').name or import_root}/ first, then in the installed packages; "
            "put the file there or install its package",
        ) from error
    for name in attributes.split("."):
        if not hasattr(found, name):
            near = ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))[:8])
            raise SpecError(f"model: {module_name!r} has no {attributes!r}; it has {near}")
        found = getattr(found, name)
    if not callable(found):
        raise SpecError(f"model: {model} is a {type(found).__name__}, which cannot be called")
    call: Callable[..., Any] = found
    return call
