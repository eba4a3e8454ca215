"""The state of sequences, kept by correlation id as Triton's core keeps it for its native backends.

The core gives a Python model the state inputs of a sequence's first request, but takes no states back from it.
So what a sequence had last is kept here. Both schedulers pin a sequence to one instance, which is one process.
It runs in the embedded server's own environment, beside `model.py`.
"""

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Json = dict[str, Any]
Native = Any
Array = np.ndarray[Any, Any]

DEFAULT_IDLE_US = 1_000_000
"""Triton's own, where `max_sequence_idle_microseconds` is left out."""
FORGET_AFTER = 10
"""Idle times after which a sequence is forgotten: the core ends it after one, its last requests may wait in a queue."""
LEAST_KEPT_S = 30.0


class SequenceStates:
    """What each sequence of one instance had last: the arrays of its state inputs."""

    def __init__(self, config: Json) -> None:
        batching = config.get("sequence_batching", {})
        self.outputs = {state["input_name"]: state["output_name"] for state in batching.get("state", [])}
        idle_us = int(batching.get("max_sequence_idle_microseconds", 0)) or DEFAULT_IDLE_US
        self.kept_s = max(LEAST_KEPT_S, FORGET_AFTER * idle_us / 1e6)
        self.kept: dict[int | str, tuple[float, dict[str, Array]]] = {}

    def fill(self, request: Native, arrays: dict[str, Array]) -> None:
        """Put the sequence's last states in the place of the initial ones that the core sends every time."""
        # The direct scheduler fills idle slots with requests of no sequence.
        if not self.outputs or not (sequence := request.correlation_id()):
            return
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            return
        if sequence not in self.kept:
            msg = f"sequence {sequence} has no state here: its first request failed, or it was idle for too long"
            raise ValueError(msg)
        arrays.update(self.kept[sequence][1])

    def update(self, request: Native, results: dict[str, Array]) -> None:
        """Keep what the sequence's next request starts from; nothing after its last one."""
        if not self.outputs or not (sequence := request.correlation_id()):
            return
        flags = request.flags()
        if flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self._forget_idle()
        if flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            self.kept.pop(sequence, None)
            return
        # Copies: a slice would hold the whole batch.
        states = {name: results[output].copy() for name, output in self.outputs.items()}
        self.kept[sequence] = (time.monotonic(), states)

    def _forget_idle(self) -> None:
        """The core ends idle sequences without a word to the model."""
        oldest = time.monotonic() - self.kept_s
        for sequence in [key for key, (used, _) in self.kept.items() if used < oldest]:
            del self.kept[sequence]
