"""Small TorchScript files, written as a user would: `torch.jit.script(network).save(path)`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


class Doubling(torch.nn.Module):
    """y = 2 x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Minus(torch.nn.Module):
    """Two arguments that must not be confused, two outputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a - b, (a > b).to(torch.int64)


class Taking(torch.nn.Module):
    """A dict of tensors."""

    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return tensors["left"] - tensors["right"]


class Numbered(torch.nn.Module):
    """An argument that is a Python number."""

    def forward(self, x: torch.Tensor, factor: int = 3) -> torch.Tensor:
        return x * factor


class Words(torch.nn.Module):
    """Strings in and out."""

    def forward(self, x: list[str]) -> list[str]:
        return [word.upper() for word in x]


class Total(torch.nn.Module):
    """A scalar."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Adding(torch.nn.Module):
    """A running sum: state in, state out."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + h, x + h


class Linear(torch.nn.Module):
    """y = x w, with buffers of other types beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def save_script(network: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network.eval()).save(str(path))
    return path
