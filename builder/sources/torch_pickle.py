"""Whole PyTorch networks pickled by `torch.save(model)`: opening one runs code, so only where the spec allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from builder.frameworks.pytorch.checkpoint import load_checkpoint, refuse_pickle
from builder.frameworks.pytorch.files import foreign_names, torch_kind
from builder.frameworks.pytorch.network import TorchNetwork
from builder.frameworks.pytorch.unpickle import RUNS_CODE
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
EXTRA: Final = "torch"
FORMATS: Final = ("onnx", "torchscript")
SHOWN: Final = 5


def recognise(path: Path) -> bool:
    """A pickle, alone or in a `torch.save` archive, that names more than a state dict does."""
    return torch_kind(path) == "pickle"


def describe(path: Path) -> Description:
    """What the pickle would import; nothing in it is executed."""
    names = foreign_names(path)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return Description(
        format="torch_pickle",
        signature=None,
        notes=(f"a pickle that names {shown or 'no class'}", RUNS_CODE),
    )


def screen(source: SourceRef) -> None:
    """Raises SpecError for a pickle of more than tensors that the spec does not allow."""
    refuse_pickle(source)


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TorchNetwork:
    """Unpickle the network, or a checkpoint that holds one, or weights for the callable of the spec.

    Raises:
        SpecError: not allowed, a class that cannot be imported, no network inside, or no inputs.
    """
    return load_checkpoint(source, inputs, outputs)
