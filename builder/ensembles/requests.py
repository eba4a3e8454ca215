"""What an ensemble is asked: its own samples, else those of the members that its inputs go to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.ensembles.wiring import WiredStep
from builder.errors import SpecError
from builder.samples import Request
from builder.samples.file import read_samples
from builder.samples.recut import row_pools, split_rows
from builder.samples.requests import FileSamples
from builder.tensors import Signature
from builder.work import SamplesRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

SIZES = (1, 2, 3)
REMEDY = "give the ensemble real inputs: samples: {path: FILE.npz}, one array for each input"


def own_inputs(samples: SamplesRef, signature: Signature, max_rows: int) -> list[Arrays]:
    """The user's file in requests of several sizes.

    Raises:
        SpecError: it does not fit the inputs.
    """
    path = Path(samples.path or "")
    rows = read_samples(path, None, signature.inputs)
    sizes = request_sizes(max_rows) if signature.has_batch_axis else ()
    return [arrays for arrays, _ in FileSamples(path.name, signature.inputs, rows).requests(sizes)]


def request_sizes(max_rows: int) -> tuple[int, ...]:
    """Batch sizes to ask for."""
    return tuple(sorted({size for size in (*SIZES, max_rows) if size <= max_rows}))


def fixed_rows(steps: Sequence[WiredStep], signatures: Mapping[str, Signature]) -> int | None:
    """The one batch size that an ensemble takes because of a member that is fixed to it, while others are not."""
    firsts = set[int]()
    for step in steps:
        signature = signatures[step.member]
        if not signature.has_batch_axis:
            firsts |= {
                dim if isinstance(dim, int) else 0 for tensor in signature.tensors for dim in tensor.shape[:1] or (0,)
            }
    open_ones = any(signatures[step.member].has_batch_axis for step in steps)
    return firsts.pop() if open_ones and len(firsts) == 1 and 0 not in firsts else None


def members_inputs(
    signature: Signature,
    steps: Sequence[WiredStep],
    known: Mapping[str, Sequence[Request]],
    max_rows: int,
    rows_fixed: int | None = None,
) -> list[Arrays]:
    """Requests made of the stored samples of the members that take the inputs; `known` are the members' requests.

    `rows_fixed` is the only batch size, where there is one.

    Raises:
        SpecError: members that are asked together have no requests that go together.
    """
    sources: dict[str, list[tuple[str, str]]] = {}
    for tensor in signature.inputs:
        step, port = next((step, port) for step in steps for port, name in step.inputs if name == tensor.name)
        sources.setdefault(step.member, []).append((port, tensor.name))
    if rows_fixed is None and not signature.has_batch_axis:
        return _side_by_side(sources, known)
    if rows_fixed is None and len(sources) == 1:
        return [arrays for arrays in _side_by_side(sources, known) for arrays in _pieces(arrays, max_rows)]
    rows = {member: _pool(known[member], pairs) for member, pairs in sources.items()}
    count = min(len(next(iter(arrays.values()))) for arrays in rows.values())
    sizes = request_sizes(max_rows) if rows_fixed is None else (rows_fixed,)
    return list(_cut({name: array for arrays in rows.values() for name, array in arrays.items()}, count, sizes))


def _side_by_side(sources: Mapping[str, list[tuple[str, str]]], known: Mapping[str, Sequence[Request]]) -> list[Arrays]:
    """Whole requests, one of each member; those of one size of the first axis where several are asked."""
    count = min(len(known[member]) for member in sources)
    return [
        {name: known[member][index].inputs[port] for member, pairs in sources.items() for port, name in pairs}
        for index in range(count)
    ]


def _pieces(arrays: Arrays, max_rows: int) -> tuple[Arrays, ...]:
    return split_rows(Request(arrays, {}, len(next(iter(arrays.values())))), max_rows)


def _pool(requests: Sequence[Request], pairs: Sequence[tuple[str, str]]) -> Arrays:
    """The rows of one form that there are most of, by the ensemble's names."""
    pools = row_pools(
        [Request({name: request.inputs[port] for port, name in pairs}, {}, request.rows) for request in requests]
    )
    return max(pools, key=lambda pool: pool.rows).inputs


def _cut(arrays: Arrays, count: int, sizes: tuple[int, ...]) -> Sequence[Arrays]:
    from builder.samples.requests import cut_sizes

    pieces, start = [], 0
    for size in cut_sizes(count, sizes):
        pieces.append({name: array[start : start + size] for name, array in arrays.items()})
        start += size
    if not pieces:
        raise SpecError("the members' samples hold no rows that go together", remedy=REMEDY)
    return pieces
