"""Whole PyTorch networks pickled by `torch.save(model)`: opening one runs code, so only where the spec allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.pytorch.callables import build_network, use_import_root
from builder.pytorch.files import foreign_names, torch_kind
from builder.pytorch.network import TorchNetwork, check_inputs
from builder.pytorch.unpickle import CODE_RAN, open_pickle
from builder.pytorch.weights import find_state_dict, import_torch, load_weights, pickle_error
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
EXTRA: Final = "torch"
SHOWN: Final = 5
NESTED: Final = ("model", "ema", "net", "network", "module")
"""Keys under which training programs keep the network in a checkpoint."""


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
        notes=(
            f"a pickle that names {shown or 'no class'}: opening it can run any code, so build refuses it unless the "
            "spec says source: {allow_pickle: true}",
        ),
    )


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TorchNetwork:
    """Unpickle the network, or a checkpoint that holds one, or weights for the callable of the spec.

    Raises:
        SpecError: not allowed, a class that cannot be imported, no network inside, or no inputs.
    """
    path = Path(source.path)
    if not source.allow_pickle:
        raise pickle_error(path)
    check_inputs(inputs, "a pickled PyTorch network")
    use_import_root(source.import_root)
    content = open_pickle(path)
    network = find_network(content)
    if network is not None:
        return TorchNetwork(network, inputs, outputs, notes=(CODE_RAN,))
    if source.model is None:
        raise SpecError(
            f"{path.name} holds a {type(content).__name__}, no torch.nn.Module",
            remedy="save torch.save(model, ...), or name what builds the network: source: {model: my_nets:build}",
        )
    weights, notes = find_state_dict(content, path)
    network = build_network(source.model, source.args, source.import_root)
    return TorchNetwork(network, inputs, outputs, notes=(CODE_RAN, *notes, *load_weights(network, weights, path)))


def find_network(content: Any) -> Any:  # noqa: ANN401 - a torch.nn.Module or None
    """The network itself, or the one in a checkpoint."""
    torch = import_torch()
    if isinstance(content, torch.nn.Module):
        return content
    nested = (content.get(key) for key in NESTED) if isinstance(content, dict) else ()
    return next((item for item in nested if isinstance(item, torch.nn.Module)), None)
