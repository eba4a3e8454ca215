"""Open a pickle that the spec allows, and name the class that cannot be imported."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.frameworks.pytorch.files import foreign_names
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.reading import short

CODE_RAN: Final = "the source was opened as a pickle, which can run code: the spec allows it"

RUNS_CODE: Final = "opening it can run any code, so build refuses it unless the spec says source: {allow_pickle: true}"


def open_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The content of the file on the CPU; this runs the code that it names.

    Raises:
        SpecError: a class that cannot be imported, or a damaged file.
    """
    torch = import_torch()
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        if "magic number" in str(error):
            return _open_plain(path)
        raise unpickle_failure(path, error) from error


def _open_plain(path: Path) -> Any:  # noqa: ANN401
    """A file of `pickle.dump`."""
    try:
        with path.open("rb") as stream:
            return pickle.load(stream)  # noqa: S301 - the spec allows it
    except Exception as error:
        raise unpickle_failure(path, error) from error


def unpickle_failure(path: Path, error: Exception) -> SpecError:
    """Why a pickle did not open: the class that cannot be imported, or the error."""
    missing = next(filter(None, map(_why_not, foreign_names(path))), None)
    if missing is None:
        return SpecError(
            f"{path.name} cannot be unpickled: {type(error).__name__}: {short(error)}",
            remedy="the file is cut off, or was saved with other versions of its libraries: save it again",
        )
    name, reason = missing
    if name.startswith("__main__."):
        return SpecError(
            f"{path.name} needs the class {name}, which was defined in the script that saved it",
            remedy="move the class into a module, save again; or save torch.save(model.state_dict(), ...)",
        )
    return SpecError(
        f"{path.name} needs {name}, which cannot be imported: {reason}",
        remedy=f"put {name.partition('.')[0]} beside the spec file, name its folder with source: import_root:, "
        "or pip install its package",
    )


def _why_not(name: str) -> tuple[str, str] | None:
    """The class and the reason when it cannot be imported; classes may lie inside classes."""
    parts = name.split(".")
    reason = ""
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except Exception as error:
            reason = f"{type(error).__name__}: {short(error)}"
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return name, f"{found.__name__} has no {part!r}"
            found = getattr(found, part)
        return None
    return name, reason
