"""What both phases of the live check share on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from builder.findings import Finding
from builder.live.records import Served
from builder.servers import Endpoint
from builder.tensors import reshaped
from builder.triton_client import Client, Statistics, difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


STATISTICS_LAG_S: Final = 1.0


def served_batching(client: Client, model: str) -> Served:
    """Whether, and how far, the server batches requests of the model, and which tensors it reshapes."""
    config = client.config(model)
    size = int(config.get("max_batch_size", 0))
    reshapes = {
        port["name"]: (_sizes(port["dims"]), _sizes(port["reshape"]["shape"]))
        for port in (*config.get("input", ()), *config.get("output", ()))
        if (port.get("reshape") or {}).get("shape")
    }
    return Served(size, size > 1 and config.get("dynamic_batching") is not None, reshapes)


def as_sent(inputs: Arrays, served: Served) -> Arrays:
    """In the form that clients send: dims where there is a reshape, [N, 1] for a mere batch axis where it batches."""
    sent = {}
    for name, array in inputs.items():
        if name in served.reshapes:
            dims, shape = served.reshapes[name]
            sent[name] = _reshaped(array, shape, dims, served)
        else:
            sent[name] = array.reshape(-1, 1) if served.max_batch_size and array.ndim == 1 else array
    return sent


def shaped_like(sources: Arrays, answers: Arrays, served: Served | None = None) -> Arrays:
    """Answers in the source's form: without reshape, with scalars that travel as [1], and vectors of rows as [N, 1]."""
    batches = served is not None and served.max_batch_size > 0
    shaped = {}
    for name, array in answers.items():
        if served is not None and name in served.reshapes:
            dims, shape = served.reshapes[name]
            shaped[name] = _reshaped(array, dims, shape, served)
        else:
            shaped[name] = _shaped(sources[name].ndim, array, batches=batches) if name in sources else array
    return shaped


def _reshaped(
    array: NDArray[np.generic], before: tuple[int, ...], after: tuple[int, ...], served: Served
) -> NDArray[np.generic]:
    """What has another rank stays as it is, for the server or the comparison to refuse."""
    rows = array.shape[:1] if served.max_batch_size else ()
    sizes = array.shape[len(rows) :]
    return array.reshape(*rows, *reshaped(sizes, before, after)) if len(sizes) == len(before) else array


def _sizes(numbers: Iterable[int | str]) -> tuple[int, ...]:
    """64-bit numbers are texts in the JSON of gRPC."""
    return tuple(map(int, numbers))


def _shaped(rank: int, array: NDArray[np.generic], *, batches: bool) -> NDArray[np.generic]:
    if rank == 0 and array.shape == (1,):
        return array.reshape(())
    return array.reshape(-1) if batches and rank == 1 and array.shape[1:] == (1,) else array


def ensure_alive(endpoint: Endpoint) -> None:
    """Ask after a failed request whether the server itself is gone: a dead process shows within moments.

    Raises:
        ServeError: the server or the model's process has died, in its own words.
    """
    for wait_s in (0.0, 0.1, 0.2):
        time.sleep(wait_s)
        endpoint.alive()


def settled(watcher: Client, model: str, before: Statistics, requests: int) -> Statistics:
    """The server counts a request a moment after answering it."""
    deadline = time.perf_counter() + STATISTICS_LAG_S
    while True:
        happened = difference(watcher.statistics(model), before)
        if happened.requests >= requests or time.perf_counter() > deadline:
            return happened
        time.sleep(0.02)


def request_finding(text: str, remedy: str, model: str, target: str | None) -> Finding:
    """A request that was not answered."""
    return Finding("error", "live.request", text, remedy=remedy, model=model, target=target)
