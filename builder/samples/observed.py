"""The full signature from what was seen: every output axis fixed, or named after the input axis it always equals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.samples import Request
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Declared = Mapping[str, tuple[Dim | None, ...]]


def observe_signature(inputs: tuple[Tensor, ...], seen: Sequence[Request], declared: Declared) -> Signature:
    """Inputs as given; outputs from the shapes in `seen`, whose names and ranks win over what the file declares.

    Raises:
        SpecError: an output changes its rank, has a type that Triton has not, or the name of an input.
    """
    names = list(seen[0].outputs)
    for name in names:
        if name in {tensor.name for tensor in inputs}:
            raise SpecError(
                f"{name!r} is the name of an input and of an output",
                remedy="leave it out: outputs: [...] in the spec names the others; or rename it in the model",
            )
    return Signature(inputs, tuple(_output(name, inputs, seen, declared.get(name)) for name in names))


def _output(
    name: str, inputs: tuple[Tensor, ...], seen: Sequence[Request], declared: tuple[Dim | None, ...] | None
) -> Tensor:
    arrays = [request.outputs[name] for request in seen]
    ranks = sorted({array.ndim for array in arrays})
    if len(ranks) > 1:
        raise SpecError(
            f"output {name!r} has rank {ranks[0]} for some inputs and {ranks[-1]} for others; Triton needs one rank",
            remedy="make the model keep its axes (squeeze() without an axis drops those of size 1)",
        )
    if declared is not None and len(declared) != ranks[0]:
        declared = None
    shape = tuple(
        _axis(f"{name}_dim_{axis}", [array.shape[axis] for array in arrays], _sizes(inputs, seen), (axis, declared))
        for axis in range(ranks[0])
    )
    return Tensor(name, dtype_of(arrays[0], name), shape)


def dtype_of(array: Array, name: str) -> str:
    """The dtype in the vocabulary of `builder.tensors`.

    Raises:
        SpecError: Triton has no such type.
    """
    word = "string" if array.dtype.kind in "OUS" else array.dtype.name
    if word not in BY_NUMPY:
        raise SpecError(f"output {name!r} is {word}, which Triton does not have", remedy="cast it inside the model")
    return word


def _sizes(inputs: Sequence[Tensor], seen: Sequence[Request]) -> dict[str, list[int]]:
    """For each named input axis its size in every request."""
    return {
        str(tensor.shape[axis]): [request.inputs[tensor.name].shape[axis] for request in seen]
        for tensor in reversed(inputs)
        for axis in reversed(tensor.dynamic_axes)
    }


def _axis(
    fresh: str, sizes: list[int], known: dict[str, list[int]], place: tuple[int, tuple[Dim | None, ...] | None]
) -> Dim:
    """One output axis: `sizes` are its sizes, `known` those of the named input axes, in the same requests."""
    axis, declared = place
    said = declared[axis] if declared is not None else sizes[0]
    varies = len(set(sizes)) > 1
    if not varies and isinstance(said, int):
        unvaried = declared is None and len(sizes) > 0 and next(_equal_axes(sizes, known), None)
        return unvaried or sizes[0]
    if isinstance(said, str) and known.get(said, sizes) == sizes:
        return said
    equal = list(_equal_axes(sizes, known))
    return equal[0] if equal else fresh


def _equal_axes(sizes: list[int], known: dict[str, list[int]]) -> Iterator[str]:
    """Input axes that always have these sizes; first those that were seen to vary."""
    same = [name for name in reversed(known) if known[name] == sizes]
    yield from sorted(same, key=lambda name: len(set(known[name])) == 1)


def fix_first_axis(inputs: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
    """The inputs with a first axis of that size, and every other axis of the same name with it."""
    names = {tensor.shape[0] for tensor in inputs}
    return tuple(
        replace(tensor, shape=tuple(size if dim in names and isinstance(dim, str) else dim for dim in tensor.shape))
        for tensor in inputs
    )


def fix_declared(declared: Declared, names: Sequence[str], size: int) -> dict[str, tuple[Dim | None, ...]]:
    """Declared output shapes after the axes `names` were fixed at `size`; an unnamed first axis goes with them."""
    return {
        name: tuple(size if dim in names or (dim is None and axis == 0) else dim for axis, dim in enumerate(shape))
        for name, shape in declared.items()
    }
