"""Path → the word of its format, by content; for what is no model, what it is instead."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Final

from builder.archives import member_names
from builder.errors import SpecError
from builder.frameworks.pytorch.files import torch_kind
from builder.frameworks.tensorflow.bundle import is_index
from builder.sources import SOURCES, source_module

ACCEPTED: Final = (
    "accepted are ONNX files, TorchScript files, PyTorch state dicts (.pt, .pth, .safetensors), torch.export programs "
    "(.pt2), Hugging Face model directories, scikit-learn and PyTorch pickles (only where the spec allows them), "
    "TensorFlow SavedModels, Keras models (.keras, .h5), TensorFlow checkpoints, and steps in Python (.py)"
)
SHOWN: Final = 3
ALIKE: Final = 0.8
"""So alike are two names, of 1, that one may be a slip of the other."""


def find_model(path: Path) -> Path:
    """The file or folder that is meant: the path itself, or the index of the TensorFlow checkpoint that it names.

    Raises:
        SpecError: nothing there; the nearest names, or what is accepted.
    """
    if path.exists():
        return path
    index = path.with_name(f"{path.name}.index")
    if is_index(index):
        return index
    raise SpecError(f"no such file or folder: {path}", remedy=_nearest(path))


def _nearest(path: Path) -> str:
    """What may have been meant instead of a path that is not there."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either: check the path"
    names = sorted(child.name for child in path.parent.iterdir() if not child.name.startswith("."))
    same = [name for name in names if Path(name).stem == path.stem]
    near = list(dict.fromkeys([*get_close_matches(path.name, names, SHOWN, ALIKE), *same[:SHOWN]]))
    if near:
        return f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    return f"check the path; {ACCEPTED}"


def recognise(path: Path) -> str:
    """The format's word.

    Raises:
        SpecError: nothing there, or no model of a known format; says what was seen and what is accepted.
    """
    path = find_model(path)
    if path.is_file() and path.stat().st_size == 0:
        raise SpecError(f"{path.name} is empty", remedy="copy or download the model again")
    for word in SOURCES:
        if source_module(word).recognise(path):
            return word
    if path.is_dir():
        raise _directory(path)
    if path.suffix in (".yaml", ".yml"):
        raise SpecError(f"{path.name} is no model", remedy=f"if it is a spec: build-repo plan {path}, or build {path}")
    raise SpecError(_seen(path), remedy=ACCEPTED)


def _directory(path: Path) -> SpecError:
    names = sorted(child.name for child in path.iterdir())
    holds = f"it holds {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}" if names else "it is empty"
    what = f"a directory that is no model ({holds})"
    return SpecError(f"{path.name or path} is {what}", remedy=f"name the model's file; {ACCEPTED}")


def _seen(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(512)
    if torch_kind(path) == "package":
        return (
            f"{path.name} is a torch.package archive: code and pickles together, which build-repo does not open; "
            "load it where you trust it and save torch.export.save(...), an ONNX file or a state dict"
        )
    if head.startswith(b"PK"):
        names = member_names(path)
        holds = (
            f"it holds {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}" if names else "damaged or empty"
        )
        return f"{path.name} is a zip archive that is no model ({holds})"
    if path.suffix == ".onnx":
        return f"{path.name} is not a readable ONNX model: its {path.stat().st_size} bytes are no ONNX protobuf"
    if head.startswith(b"\x89HDF\r\n"):
        return f"{path.name} is an HDF5 file that holds no Keras model and no Keras weights"
    if head.startswith(b"version https://git-lfs"):
        return f"{path.name} is a Git LFS pointer, not the file itself (git lfs pull)"
    text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)  # noqa: PLR2004 - control characters
    return f"{path.name} is {'a text file' if text else 'a binary file of no known format'}, no model"
