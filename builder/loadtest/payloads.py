"""Sample requests as the file that `loadtests/payloads.py` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.samples import Request, storable
from builder.samples.strings import array_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

PAYLOAD_BYTES: Final = 256 << 20
"""Load tests repeat their requests; more than this only costs memory."""


def save_payload(file: Path, requests: Sequence[Request], *, rows_proven: bool = False) -> None:
    """Write the inputs as `INDEX/INPUT`, `rows` and, of steps, `sequence`; no pickle is needed to read them.

    `rows_proven`: rows of a request do not change each other's answers.
    """
    import numpy as np

    chosen = _within(requests, PAYLOAD_BYTES)
    members: dict[str, Array] = {"rows": np.asarray([request.rows for request in chosen], np.int64)}
    if rows_proven:
        members["rows_proven"] = np.asarray(True)
    if all(request.sequence is not None for request in chosen):
        members["sequence"] = np.asarray([request.sequence for request in chosen], np.int64)
    for index, request in enumerate(chosen):
        for name, array in request.inputs.items():
            members |= storable(f"{index}/{name}", np.asarray(array))
    np.savez(file, **members)  # type: ignore[arg-type]


def _within(requests: Sequence[Request], limit: int) -> list[Request]:
    chosen: list[Request] = []
    total = 0
    for request in requests:
        total += sum(map(array_bytes, request.inputs.values()))
        if chosen and total > limit:
            break
        chosen.append(request)
    return chosen
