"""PyTorch weights with a callable that returns the network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from builder.frameworks.pytorch.checkpoint import load_checkpoint, refuse_pickle
from builder.frameworks.pytorch.files import read_header, torch_kind
from builder.frameworks.pytorch.network import TorchNetwork
from builder.frameworks.pytorch.weights import find_state_dict, open_weights, pickle_error
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
EXTRA: Final = "torch"
FORMATS: Final = ("onnx", "torchscript")
KINDS: Final = ("state_dict", "safetensors", "legacy")


def recognise(path: Path) -> bool:
    """A `torch.save` archive without code, or a safetensors file."""
    return torch_kind(path) in KINDS


def describe(path: Path) -> Description:
    """Count the weights; nothing in the file is executed."""
    if torch_kind(path) == "pickle":
        raise pickle_error(path)
    notes: tuple[str, ...] = ()
    if torch_kind(path) == "safetensors":
        header = read_header(path) or {}
        sizes = [math.prod(entry["shape"]) for entry in header.values() if isinstance(entry, dict) and "shape" in entry]
    else:
        weights, notes = find_state_dict(open_weights(path), path)
        sizes = [weight.numel() for weight in weights.values()]
    return Description(
        format="torch_state_dict",
        signature=None,
        parameters=sum(sizes),
        notes=(*notes, f"{len(sizes)} tensors; the network itself is code: source: model: names it"),
    )


def screen(source: SourceRef) -> None:
    """Raises SpecError for a pickle of more than tensors that the spec does not allow."""
    refuse_pickle(source)


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TorchNetwork:
    """Build the network and load its weights.

    Raises:
        SpecError: a pickle, no callable, no inputs, or weights that do not fit.
    """
    return load_checkpoint(source, inputs, outputs)
