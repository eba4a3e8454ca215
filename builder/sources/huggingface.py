"""Hugging Face model directories: config.json with safetensors or .bin weights, the architecture from transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.huggingface.config import (
    EXAMPLE,
    WEIGHTS,
    find_architecture,
    forward_names,
    own_inputs,
    read_config,
)
from builder.frameworks.huggingface.model import HuggingFaceModel, open_model, wrapped
from builder.frameworks.pytorch.files import read_header
from builder.frameworks.pytorch.network import check_inputs
from builder.sources import Description
from builder.tensors import Signature, Tensor
from builder.work import SourceRef

LIBRARIES: Final = (
    "transformers",
    "safetensors",
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
)
EXTRA: Final = "huggingface"
FORMATS: Final = ("onnx", "torchscript")


def recognise(path: Path) -> bool:
    """A directory with the config and the weights of a transformers model."""
    return path.is_dir() and read_config(path) is not None and bool(_weights(path))


def _weights(path: Path) -> list[Path]:
    return sorted(file for pattern in WEIGHTS for file in path.glob(pattern))


def describe(path: Path) -> Description:
    """The architecture and its inputs; the weights are counted, not read."""
    architecture, config = find_architecture(path)
    inputs = own_inputs(architecture, config)
    return Description(
        format="huggingface",
        signature=Signature(inputs, ()) if inputs else None,
        parameters=_count(path),
        notes=(f"architecture {architecture.__name__}; running it tells the outputs", *_notes(path)),
    )


def _count(path: Path) -> int | None:
    headers = [read_header(file) for file in path.glob("*.safetensors")]
    if not headers or None in headers:
        return None
    entries = [entry for header in headers for entry in (header or {}).values()]
    floats = (entry for entry in entries if isinstance(entry, dict) and "F" in str(entry.get("dtype")))
    return sum(math.prod(entry["shape"]) for entry in floats)


def _notes(path: Path) -> tuple[str, ...]:
    if (path / "modules.json").is_file():
        return ("sentence-transformers' steps after the model (modules.json: pooling, norm) are not served",)
    return ()


def screen(source: SourceRef) -> None:
    """Nothing to ask for: code in the folder is never run."""


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> HuggingFaceModel:
    """Load the model; the spec's inputs win over those that the config tells.

    Raises:
        SpecError: code of its own, an unknown model, missing weights, or inputs that `forward` does not have.
    """
    path = Path(source.path)
    architecture, config = find_architecture(path)
    chosen = inputs or own_inputs(architecture, config)
    known = forward_names(architecture)
    if not chosen:
        raise SpecError(
            f"{path.name}: {architecture.__name__} does not tell its inputs; forward takes {', '.join(known)}",
            remedy=f"add inputs to the spec, for example {EXAMPLE}",
        )
    check_inputs(chosen, architecture.__name__)
    strange = [tensor.name for tensor in chosen if tensor.name not in known]
    if strange:
        raise SpecError(
            f"inputs: {architecture.__name__} has no {', '.join(strange)}; forward takes {', '.join(known)}",
            remedy="name the inputs like the arguments of forward",
        )
    model = open_model(path, architecture, config)
    return HuggingFaceModel(wrapped(model, chosen), chosen, outputs, notes=_notes(path))
