"""What both phases of the live check share on the wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from builder.findings import Finding
from builder.live.records import Served
from builder.servers import Endpoint
from builder.triton_client import Client, Statistics, difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


STATISTICS_LAG_S: Final = 1.0


def served_batching(client: Client, model: str) -> Served:
    """Whether, and how far, the server batches requests of the model."""
    config = client.config(model)
    size = int(config.get("max_batch_size", 0))
    return Served(size, size > 1 and config.get("dynamic_batching") is not None)


def shaped_like(sources: Arrays, answers: Arrays) -> Arrays:
    """Answers with the scalars back that travel as [1]."""
    return {
        name: array.reshape(()) if name in sources and sources[name].ndim == 0 and array.shape == (1,) else array
        for name, array in answers.items()
    }


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
