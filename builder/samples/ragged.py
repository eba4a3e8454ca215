"""Requests of unequal sizes as one run of the model: their values joined, and what Triton fills beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Final

from builder.errors import SpecError
from builder.measurement import BATCH, FilledInput, Ragged
from builder.samples import Request
from builder.samples.batch_probe import TOLERANCE, row_difference
from builder.tensors import Tensor
from builder.work import RaggedRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

FILLED_TYPES: Final = ("int32", "float32")
"""Of a `batch_input`."""
SIZES: Final = (2, 3, 5, 8)
"""Requests that share a run of the source."""
MOST_BATCHES: Final = 12


def open_ragged(inputs: Sequence[Tensor], outputs: Sequence[str] | None, ref: RaggedRef) -> Ragged:
    """The words of the spec against the model's own inputs and outputs.

    Raises:
        SpecError: a name, a type or a rank does not fit.
    """
    known = {tensor.name: tensor for tensor in inputs}
    for name in (*(item.name for item in ref.inputs), *(item.name for item in ref.filled)):
        if name not in known:
            raise SpecError(f"ragged: the model has no input {name!r}", remedy=f"it has {', '.join(known)}")
    for name, _ in ref.outputs:
        if outputs is not None and name not in outputs:
            raise SpecError(f"ragged: the model has no output {name!r}", remedy=f"it has {', '.join(outputs)}")
    filled = {item.name for item in ref.filled}
    shapes = {item.name: item.shape for item in ref.inputs}
    for tensor in inputs:
        if tensor.name in shapes:
            _check(tensor, 1, "the values of all requests lie one after the other in it")
        elif tensor.name in filled:
            kind = next(item.kind for item in ref.filled if item.name == tensor.name)
            _check(tensor, 2 if kind == "BATCH_ITEM_SHAPE" else 1, f"Triton fills {kind} into it")
            if tensor.dtype not in FILLED_TYPES:
                raise SpecError(
                    f"ragged: input {tensor.describe()} is filled by Triton, which makes {' or '.join(FILLED_TYPES)}",
                    remedy="give that input of the model one of those types, and cast inside the model",
                )
        else:
            _check(tensor, None, "each request is one row of it")
    return Ragged(
        tuple(replace(known[item.name], shape=(BATCH, *item.shape)) for item in ref.inputs),
        tuple(FilledInput(item.name, item.kind, item.of) for item in ref.filled),
        ref.outputs,
    )


def _check(tensor: Tensor, rank: int | None, why: str) -> None:
    if (rank is None or len(tensor.shape) == rank) and tensor.shape and isinstance(tensor.shape[0], str):
        return
    wanted = "a first axis" if rank is None else "one axis" if rank == 1 else f"{rank} axes, the first"
    raise SpecError(
        f"ragged: input {tensor.describe()} must have {wanted} of any size: {why}",
        remedy="export the model so, and declare it under inputs: where the file does not say it",
    )


@dataclass(frozen=True, slots=True)
class Batcher:
    """How requests of a model become one run of it; `inputs` are the model's own, in its order."""

    inputs: tuple[Tensor, ...]
    ragged: Ragged

    @property
    def client_inputs(self) -> tuple[Tensor, ...]:
        """What one request is made of, with a batch axis."""
        ragged = {tensor.name: tensor for tensor in self.ragged.inputs}
        filled = {item.name for item in self.ragged.filled}
        return tuple(
            ragged.get(item.name) or replace(item, shape=(BATCH, *item.shape[1:]))
            for item in self.inputs
            if item.name not in filled
        )

    def merged(self, requests: Sequence[Arrays]) -> dict[str, Array]:
        """The arrays of one run for all of them."""
        import numpy as np

        from builder.ragged_batches import filled

        ragged = {tensor.name for tensor in self.ragged.inputs}
        made = {item.name: item for item in self.ragged.filled}
        arrays: dict[str, Array] = {}
        for tensor in self.inputs:
            if tensor.name in made:
                item = made[tensor.name]
                arrays[tensor.name] = filled(item.kind, [one[item.of].shape for one in requests], tensor.dtype)
            else:
                flat = tensor.name in ragged
                pieces = [one[tensor.name].ravel() if flat else one[tensor.name] for one in requests]
                arrays[tensor.name] = np.concatenate(pieces)
        return arrays

    def separated(self, answer: Arrays, requests: Sequence[Arrays]) -> list[dict[str, Array]]:
        """The answer to each request, as its client gets it.

        Raises:
            SpecError: an output has neither a row for each request nor the sizes of a ragged input.
        """
        cut = dict(self.ragged.outputs)
        answers: list[dict[str, Array]] = [{} for _ in requests]
        for name, array in answer.items():
            shapes = [one[cut[name]].shape for one in requests] if name in cut else [(1,)] * len(requests)
            wanted = sum(map(prod, shapes))
            if not array.ndim or len(array) != wanted:
                got = f"{len(array)} rows" if array.ndim else "one number"
                what = f"{wanted} values of {cut[name]!r}" if name in cut else f"{wanted} request{'s' * (wanted > 1)}"
                raise SpecError(
                    f"output {name!r} has {got} for {what}",
                    remedy="an output has one row for each request; one that has one for each value of a ragged input "
                    "is declared: ragged: {outputs: {OUTPUT: INPUT}}",
                )
            start = 0
            for place, shape in enumerate(shapes):
                end = start + prod(shape)
                answers[place][name] = array[start:end].reshape((*shape, *array.shape[1:]))
                start = end
        return answers


def batch_run(batcher: Batcher, run: Callable[[Arrays], tuple[Array, ...]]) -> Callable[[Arrays], tuple[Array, ...]]:
    """A run of the model for the rows of equal requests, for those who look for inputs that it takes."""

    def rows(arrays: Arrays) -> tuple[Array, ...]:
        return run(batcher.merged(_rows(arrays)))

    return rows


def _rows(arrays: Arrays) -> list[dict[str, Array]]:
    count = len(next(iter(arrays.values())))
    return [{name: array[row : row + 1] for name, array in arrays.items()} for row in range(count)]


Piece = tuple["dict[str, Array]", "Array | None"]
Answer = Callable[["Arrays", "Array | None"], Request]


def one_by_one(pieces: Sequence[Piece]) -> list[Piece]:
    """Each row as a request of its own: the counts that Triton fills in are those of a request."""
    return [
        (row, None if labels is None else labels[place : place + 1])
        for arrays, labels in pieces
        for place, row in enumerate(_rows(arrays))
    ]


def with_shorter(batcher: Batcher, pieces: Sequence[Piece], takes: Callable[[Arrays], object]) -> list[Piece]:
    """Where every request has the same sizes, each of the first few is followed by half of it, if the model takes that.

    Requests of one size would prove nothing of unequal ones. Labelled rows stay as they are: of a half there is none.
    """
    sizes = {tuple(arrays[tensor.name].shape for tensor in batcher.ragged.inputs) for arrays, _ in pieces}
    if len(sizes) > 1 or any(labels is not None for _, labels in pieces):
        return list(pieces)
    found: list[Piece] = []
    for place, (arrays, labels) in enumerate(pieces):
        found.append((arrays, labels))
        half = arrays | {tensor.name: _half(tensor, arrays[tensor.name]) for tensor in batcher.ragged.inputs}
        if place < MOST_BATCHES and any(half[name].shape != arrays[name].shape for name in arrays):
            try:
                takes(batcher.merged([half]))
            except Exception:
                return list(pieces)
            found.append((half, None))
    return found


def _half(tensor: Tensor, array: Array) -> Array:
    """The first half along every axis that has a name, the batch axis left out."""
    return array[
        tuple(
            slice(max(1, size // 2)) if axis and isinstance(dim, str) else slice(None)
            for axis, (dim, size) in enumerate(zip(tensor.shape, array.shape, strict=True))
        )
    ]


def in_batches(count: int) -> Iterator[range]:
    """Places of requests that share a run: neighbours, whose sizes differ where any do."""
    start = 0
    for number in range(MOST_BATCHES):
        if count - start < min(SIZES):
            return
        size = min(SIZES[number % len(SIZES)], count - start)
        yield range(start, start + size)
        start += size


def answered_in_batches(
    batcher: Batcher, answer: Answer, pieces: Sequence[Piece], alone: Sequence[dict[str, Array]]
) -> tuple[Request, ...]:
    """The model's answers to requests that share a run, which must be those to the same requests alone.

    Raises:
        SpecError: they are not.
    """
    import numpy as np

    found = []
    for places in in_batches(len(pieces)):
        members = [pieces[place][0] for place in places]
        labels = [pieces[place][1] for place in places]
        joint = None if any(item is None for item in labels) else np.concatenate([np.asarray(item) for item in labels])
        request = answer(batcher.merged(members), joint)
        for place, answers in zip(places, batcher.separated(request.outputs, members), strict=True):
            _compare(answers, alone[place], len(members))
        found.append(request)
    return tuple(found)


def _compare(together: Mapping[str, Any], alone: Mapping[str, Any], count: int) -> None:
    for name, array in together.items():
        same = array.shape == alone[name].shape
        difference = row_difference(alone[name], array) if same else float("inf")
        if difference > TOLERANCE:
            change = f"by {difference:.2g} of its largest magnitude" if same else f"its shape to {list(array.shape)}"
            raise SpecError(
                f"output {name!r} of a request changes {change} when {count} requests share a run",
                remedy="the model must tell the requests apart by the inputs that Triton fills: check the kinds under "
                "ragged: {filled: …}, and which of them the model was made for",
            )
