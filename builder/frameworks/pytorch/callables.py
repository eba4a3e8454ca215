"""`module:callable` → the network it returns."""

from __future__ import annotations

from typing import Any

from builder.callables import call_named, use_import_root
from builder.errors import SpecError
from builder.frameworks.pytorch.weights import import_torch

__all__ = ["build_network", "use_import_root"]


def build_network(model: str, arguments: str, import_root: str) -> Any:  # noqa: ANN401 - a torch.nn.Module
    """Import the callable, call it with the arguments (JSON), and check what it returns.

    Raises:
        SpecError: it cannot be imported, raises, or returns no network.
    """
    torch = import_torch()
    network = call_named(model, arguments, import_root)
    if not isinstance(network, torch.nn.Module):
        raise SpecError(
            f"model: {model} returned a {type(network).__name__}, not a torch.nn.Module",
            remedy="name a function or class that returns the network itself",
        )
    return network
