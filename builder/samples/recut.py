"""Rows of sample requests cut anew, so that the answer to each row is known whatever batch it travels in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]

from builder.samples import Request
from builder.samples.strings import array_bytes

POOL_BYTES: Final = 64 << 20
"""Inputs kept of one group of rows: enough to mix, little enough for any machine."""
ALONE: Final = 64
"""Rows compared as requests of their own, where answers depend on the rows beside them."""
SIZES: Final = (1, 2, 1, 3, 4, 1, 5, 2, 8)


@dataclass(frozen=True, slots=True)
class Job:
    """A request to send, and the source's answer to it. `indices` are rows of the pool; None: the whole request."""

    pool: Request
    indices: tuple[int, ...] | None

    @property
    def rows(self) -> int:
        return self.pool.rows if self.indices is None else len(self.indices)

    def inputs(self) -> Arrays:
        return _taken(self.pool.inputs, self.indices)

    def outputs(self) -> Arrays:
        return _taken(self.pool.outputs, self.indices)


def cut_jobs(pools: Sequence[Request], limit: int, seed: int) -> Iterator[Job]:
    """Endless jobs of mixed batch sizes up to `limit`, their rows drawn from the pools of `row_pools`."""
    import numpy as np

    generator = np.random.default_rng(seed)
    sizes = [size for size in SIZES if size <= max(1, limit)]
    start = int(generator.integers(len(sizes)))
    while True:
        for step in range(len(sizes)):
            pool = pools[int(generator.integers(len(pools)))]
            size = min(sizes[(start + step) % len(sizes)], pool.rows)
            yield Job(pool, tuple(generator.choice(pool.rows, size, replace=False).tolist()))


def whole_jobs(requests: Sequence[Request], seed: int) -> Iterator[Job]:
    """Endless jobs of whole requests, each client starting at another."""
    while True:
        for step in range(len(requests)):
            yield Job(requests[(seed + step) % len(requests)], None)


def row_pools(requests: Sequence[Request]) -> tuple[Request, ...]:
    """Requests whose rows have the same form joined into one each."""
    import numpy as np

    groups: dict[object, list[Request]] = {}
    for request in requests:
        group = groups.setdefault(_row_form(request), [])
        if not group or sum(_size_bytes(other) for other in group) < POOL_BYTES:
            group.append(request)
    return tuple(
        Request(
            inputs={name: np.concatenate([request.inputs[name] for request in group]) for name in group[0].inputs},
            outputs={name: np.concatenate([request.outputs[name] for request in group]) for name in group[0].outputs},
            rows=sum(request.rows for request in group),
        )
        for group in groups.values()
    )


def rows_alone(requests: Sequence[Request]) -> tuple[Request, ...]:
    """The first rows of larger requests as requests of one row, without labels; for a source that keeps rows apart."""
    found = [
        Request(
            {name: array[place : place + 1] for name, array in request.inputs.items()},
            {name: array[place : place + 1] for name, array in request.outputs.items()},
            rows=1,
        )
        for request in requests
        for place in range(request.rows if request.rows > 1 else 0)
    ]
    return tuple(found[:ALONE])


def split_rows(request: Request, limit: int) -> tuple[Arrays, ...]:
    """The inputs in pieces of at most `limit` rows (0: no limit)."""
    if limit <= 0 or request.rows <= limit:
        return (request.inputs,)
    return tuple(
        {name: array[start : start + limit] for name, array in request.inputs.items()}
        for start in range(0, request.rows, limit)
    )


def joined(pieces: Sequence[Arrays]) -> Arrays:
    """The answers to `split_rows`, as one answer."""
    import numpy as np

    if len(pieces) == 1:
        return pieces[0]
    names = [name for name in pieces[0] if all(name in piece for piece in pieces)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


def _row_form(request: Request) -> object:
    sides = (request.inputs, request.outputs)
    return tuple((name, array.shape[1:], array.dtype.kind) for side in sides for name, array in side.items())


def _size_bytes(request: Request) -> int:
    return sum(map(array_bytes, request.inputs.values()))


def _taken(arrays: Arrays, indices: tuple[int, ...] | None) -> Arrays:
    if indices is None:
        return arrays
    return {name: array[list(indices)] for name, array in arrays.items()}
