"""Sample requests and the source's answers to them, on disk as one `.npz` that needs no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

from builder.samples.strings import pack, unpack
from builder.tensors import Signature

LENGTHS = "lengths/"
"""Before the name of an array of strings: the array of their lengths."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request: full arrays with the batch axis where the model has one, and the source's answer.

    `rows` is the size of the batch axis, 0 where the model has none; `labels` holds one integer a row. Requests of
    one number in `sequence` are its steps, in their order; the states are among inputs and outputs.
    """

    inputs: Arrays
    outputs: Arrays
    rows: int = 0
    labels: NDArray[np.generic] | None = None
    sequence: int | None = None


def save_requests(path: Path, signature: Signature, requests: Sequence[Request]) -> None:
    """Write the requests; tensors are stored by position, so any tensor name is possible."""
    import numpy as np

    members: dict[str, NDArray[np.generic]] = {"rows": np.asarray([request.rows for request in requests], np.int64)}
    if any(request.sequence is not None for request in requests):
        numbers = [-1 if request.sequence is None else request.sequence for request in requests]
        members["sequence"] = np.asarray(numbers, np.int64)
    for index, request in enumerate(requests):
        for side, tensors, arrays in _sides(signature, request):
            for place, tensor in enumerate(tensors):
                members |= storable(f"{index}.{side}.{place}", np.asarray(arrays[tensor.name]))
        if request.labels is not None:
            members[f"{index}.labels"] = np.asarray(request.labels)
    np.savez(path, **members)  # type: ignore[arg-type]


def load_requests(path: Path, signature: Signature) -> tuple[Request, ...]:
    """Read what `save_requests` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return tuple(
            Request(
                inputs={
                    tensor.name: usable(stored, f"{index}.in.{place}", tensor.dtype)
                    for place, tensor in enumerate(signature.inputs)
                },
                outputs={
                    tensor.name: usable(stored, f"{index}.out.{place}", tensor.dtype)
                    for place, tensor in enumerate(signature.outputs)
                },
                rows=int(rows),
                labels=stored.get(f"{index}.labels"),
                sequence=_sequence(stored.get("sequence"), index),
            )
            for index, rows in enumerate(stored["rows"])
        )


def _sequence(numbers: NDArray[np.generic] | None, index: int) -> int | None:
    return None if numbers is None or int(numbers[index]) < 0 else int(numbers[index])


def sequences_of(requests: Sequence[Request]) -> tuple[tuple[Request, ...], ...]:
    """The steps of each sequence."""
    found: dict[int, list[Request]] = {}
    for request in requests:
        if request.sequence is not None:
            found.setdefault(request.sequence, []).append(request)
    return tuple(map(tuple, found.values()))


def _sides(signature: Signature, request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN202
    return (("in", signature.inputs, request.inputs), ("out", signature.outputs, request.outputs))


def storable(name: str, array: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    """The members of an `.npz` that hold it: strings as bytes and their lengths, bfloat16 as its bits."""
    import numpy as np

    if array.dtype.kind in "OSU":
        content, lengths = pack(array)
        return {name: content, f"{LENGTHS}{name}": lengths}
    if array.dtype.name == "bfloat16":
        return {name: array.view(np.uint16)}
    return {name: array}


def usable(stored: Mapping[str, NDArray[np.generic]], name: str, dtype: str) -> NDArray[np.generic]:
    """A stored array as requests hold it."""
    array = stored[name]
    if dtype == "string":
        # Earlier versions stored unicode.
        return unpack(array, stored[f"{LENGTHS}{name}"]) if f"{LENGTHS}{name}" in stored else array.astype(object)
    if dtype == "bfloat16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array
