"""A file of `torch.save` → a network: a pickled one, or weights in what the spec's callable returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from builder.callables import use_import_root
from builder.errors import SpecError
from builder.frameworks.pytorch.callables import build_network
from builder.frameworks.pytorch.files import torch_kind
from builder.frameworks.pytorch.network import TorchNetwork, check_inputs
from builder.frameworks.pytorch.unpickle import CODE_RAN, open_pickle
from builder.frameworks.pytorch.weights import find_state_dict, import_torch, load_weights, open_weights, pickle_error
from builder.tensors import Tensor
from builder.work import SourceRef

NESTED: Final = ("model", "ema", "net", "network", "module")
"""Keys under which training programs keep the network in a checkpoint."""


def refuse_pickle(source: SourceRef) -> None:
    """Told from the bytes of the file.

    Raises:
        SpecError: a pickle of more than tensors, and the spec does not allow it.
    """
    path = Path(source.path)
    if torch_kind(path) == "pickle" and not source.allow_pickle:
        raise pickle_error(path)


def load_checkpoint(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TorchNetwork:
    """Open the file; code in it runs only where the spec allows pickles.

    Raises:
        SpecError: a pickle that is not allowed, a class that cannot be imported, no callable, no inputs, or weights
            that do not fit.
    """
    path = Path(source.path)
    refuse_pickle(source)
    ran: tuple[str, ...] = ()
    if source.allow_pickle and torch_kind(path) != "safetensors":
        check_inputs(inputs, "a pickled PyTorch network")
        use_import_root(source.import_root)
        content, ran = open_pickle(path), (CODE_RAN,)
        network = _find_network(content)
        if network is not None:
            return TorchNetwork(network, inputs, outputs, notes=ran)
    else:
        content = open_weights(path)
    if source.model is None:
        raise _no_code(path, content)
    check_inputs(inputs, "a PyTorch state dict")
    weights, notes = find_state_dict(content, path)
    network = build_network(source.model, source.args, source.import_root)
    return TorchNetwork(network, inputs, outputs, notes=(*ran, *notes, *load_weights(network, weights, path)))


def _no_code(path: Path, content: Any) -> SpecError:  # noqa: ANN401 - whatever the file holds
    if isinstance(content, dict):
        return SpecError(
            f"{path.name} holds weights without the network's code",
            remedy="name what builds the network: source: {path: ..., model: my_nets:build, args: {...}}; "
            f"build-repo init {path.name} writes a spec to fill in",
        )
    return SpecError(
        f"{path.name} holds a {type(content).__name__}, no torch.nn.Module",
        remedy="save the network itself: torch.save(model, ...)",
    )


def _find_network(content: Any) -> Any:  # noqa: ANN401 - a torch.nn.Module or None
    """The network itself, or the one in a checkpoint."""
    torch = import_torch()
    if isinstance(content, torch.nn.Module):
        return content
    nested = (content.get(key) for key in NESTED) if isinstance(content, dict) else ()
    return next((item for item in nested if isinstance(item, torch.nn.Module)), None)
