"""A source's declared ports and what the spec says of them, brought together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from builder.errors import SpecError
from builder.onnx_tools.ports import Port, name_axes
from builder.tensors import Dim, Tensor

SHOWN: Final = 5


def narrow(ports: Sequence[Port], wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inputs as the spec declares them, in the model's order.

    Raises:
        SpecError: names, dtypes, ranks or fixed sizes differ from the model's.
    """
    if not wanted:
        return name_axes(ports)
    spec = {tensor.name: tensor for tensor in wanted}
    names = [port.name for port in ports]
    if set(spec) != set(names):
        raise SpecError(
            f"inputs: got {', '.join(sorted(spec))}; the model's inputs are {', '.join(names)}",
            remedy="name every input of the model, or leave inputs: out",
        )
    return tuple(_narrowed(port, spec[port.name]) for port in ports)


def _narrowed(port: Port, wanted: Tensor) -> Tensor:
    if port.dtype != wanted.dtype:
        raise SpecError(f"inputs: {port.name!r} is declared {wanted.dtype}, the model expects {port.dtype}")
    if port.dims is None:
        return wanted
    expected = "[" + ",".join("any" if dim is None else str(dim) for dim in port.dims) + "]"
    got = "[" + ",".join(map(str, wanted.shape)) + "]"
    pairs = list(zip(port.dims, wanted.shape, strict=False))
    if len(port.dims) != len(wanted.shape) or any(isinstance(was, int) and was != now for was, now in pairs):
        raise SpecError(
            f"inputs: {port.name!r} got shape {got}, the model expects {expected}",
            remedy="the spec may fix or name an axis of any size; it cannot change a size that the model fixes",
        )
    return wanted


def still_declared(
    ports: Sequence[Port], settled: Sequence[Tensor], declared: Mapping[str, tuple[Dim | None, ...]]
) -> Mapping[str, tuple[Dim | None, ...]]:
    """Declared output shapes, none where the spec fixed an input axis of any size: what follows from it is seen."""
    fixed = any(
        was is None and isinstance(now, int)
        for port, tensor in zip(ports, settled, strict=True)
        for was, now in zip(port.dims or (), tensor.shape, strict=False)
    )
    return {} if fixed else declared


def chosen_outputs(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The outputs to serve: all, or those the spec names, in its order.

    Raises:
        SpecError: the model has no output of that name.
    """
    for name in wanted:
        if name not in names:
            near = get_close_matches(name, names, SHOWN) or list(names[:SHOWN])
            raise SpecError(
                f"outputs: the model has no output {name!r}; the nearest are {', '.join(map(repr, near))}",
                remedy="correct outputs: in the spec, or leave it out to serve all",
            )
    return tuple(wanted or names)
