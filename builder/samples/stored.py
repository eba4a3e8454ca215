"""The samples that travel with a repository: few enough to ship, enough to check it anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from builder.cache import Cache
from builder.measurement import REFERENCE_FILE
from builder.samples import Request, load_requests, save_requests, sequences_of
from builder.samples.strings import array_bytes
from builder.tensors import Signature

MAX_BYTES: Final = 24 << 20
MAX_REQUESTS: Final = 24


def store_samples(cache: Cache, kind: str, key: str, signature: Signature, file: str = REFERENCE_FILE) -> Path:
    """The `.npz` to copy into the repository: the work's own, or a selection of it where that is large."""
    whole = cache.folder(kind, key) / file
    if whole.stat().st_size <= MAX_BYTES:
        return whole
    small = cache.root / "samples" / f"{key}.npz"
    if not small.exists():
        small.parent.mkdir(parents=True, exist_ok=True)
        temporary = small.with_suffix(f".{os.getpid()}.part.npz")
        save_requests(temporary, signature, _selection(load_requests(whole, signature)))
        temporary.replace(small)
    return small


def _selection(requests: Sequence[Request]) -> list[Request]:
    """The first request of every size, then others in order, within the limits; at least one. Sequences stay whole."""
    sequences = sequences_of(requests)
    if sequences:
        return _whole_sequences(sequences)
    sizes: set[int] = set()
    first = []
    for request in requests:
        if request.rows not in sizes:
            first.append(request)
            sizes.add(request.rows)
    taken: list[Request] = []
    total = 0
    for request in [*first, *(request for request in requests if not any(request is item for item in first))]:
        total += _size(request)
        if taken and (total > MAX_BYTES or len(taken) >= MAX_REQUESTS):
            break
        taken.append(request)
    return taken


def _whole_sequences(sequences: Sequence[Sequence[Request]]) -> list[Request]:
    """As many as fit, the first of them cut short where it alone is too large."""
    taken = [*sequences[0]]
    while len(taken) > 1 and sum(map(_size, taken)) > MAX_BYTES:
        taken.pop()
    for steps in sequences[1:]:
        if sum(map(_size, [*taken, *steps])) > MAX_BYTES:
            break
        taken += steps
    return taken


def _size(request: Request) -> int:
    return sum(array_bytes(array) for arrays in (request.inputs, request.outputs) for array in arrays.values())
