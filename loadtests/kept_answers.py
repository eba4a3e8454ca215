"""The answers of a test, kept to be compared afterwards: each different one once, with how often it came.

A server answers the same request mostly with the same bytes. So nearly all answers are looked at for the cost of a
hash, and one that is wrong once in thousands is among those kept.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from payloads import PreparedRequest

BYTES_PER_S = 64 << 20
"""Of answers, what a process looks at: a few hundredths of its core."""
KEPT = 2000
KEPT_BYTES = 64 << 20

Content = tuple[str, Any, tuple[int, ...], Any]
"""Of one output: name, dtype, shape, and the bytes, or the items where they are objects."""
Key = tuple[str, int, int, int, tuple[Content, ...]]
"""Model, the piece's place in the samples, and the outputs."""


class Answers:
    """As many of the answers as may be looked at; of more different ones than are kept, a fair sample."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.outputs: Mapping[str, list[str]] = {}
        self.seen: Counter[str] = Counter()
        self.counts: dict[Key, int] = {}
        self.keys: list[Key] = []
        self.offered = self.size = 0
        self.allowed, self.filled = float(BYTES_PER_S), clock()
        self.random = random.Random(0)  # noqa: S311 - a sample, no secret

    def offer(self, model: str, request: PreparedRequest, answer: Any) -> str:  # noqa: ANN401
        """Look at it, or not; nothing is known to be wrong yet."""
        names = self.outputs.get(model)
        if not names:
            return ""
        self.seen[model] += 1
        if not self._may_look():
            return ""
        contents = tuple(content(name, array) for name in names if (array := answer.as_numpy(name)) is not None)
        self.allowed -= sum(map(size_of, contents))
        key = (model, request.source, request.first_row, request.rows, contents)
        if key in self.counts:
            self.counts[key] += 1
        else:
            self._keep(key)
        return ""

    def _may_look(self) -> bool:
        if self.allowed <= 0:
            now = self.clock()
            self.allowed = min(BYTES_PER_S, self.allowed + BYTES_PER_S * (now - self.filled))
            self.filled = now
        return self.allowed > 0

    def _keep(self, key: Key) -> None:
        self.offered += 1
        place = len(self.keys)
        if place < KEPT and self.size < KEPT_BYTES:
            self.keys.append(key)
        elif (place := self.random.randrange(self.offered)) < len(self.keys):
            left, self.keys[place] = self.keys[place], key
            del self.counts[left]
            self.size -= sum(map(size_of, left[-1]))
        else:
            return
        self.counts[key] = 1
        self.size += sum(map(size_of, key[-1]))

    def write(self, file: Path) -> None:
        """`models`, `pieces` (their place in the samples), `counts`, `INDEX/OUTPUT`; `seen/MODEL`: all that came."""
        members: dict[str, np.ndarray] = {
            "models": np.asarray([model for model, *_ in self.keys], np.str_),
            "pieces": np.asarray([piece for _, *piece, _ in self.keys], np.int64).reshape(-1, 3),
            "counts": np.asarray([self.counts[key] for key in self.keys], np.int64),
        }
        members |= {f"seen/{model}": np.asarray(count) for model, count in self.seen.items()}
        for index, (*_, contents) in enumerate(self.keys):
            for item in contents:
                members |= storable(f"{index}/{item[0]}", array_of(item))
        np.savez(file, **members)  # type: ignore[arg-type]


def content(name: str, array: np.ndarray) -> Content:
    """What makes two outputs equal, hashable."""
    items = tuple(array.ravel().tolist()) if array.dtype.kind == "O" else array.tobytes()
    return name, array.dtype, array.shape, items


def array_of(item: Content) -> np.ndarray:
    """The output again."""
    _, dtype, shape, items = item
    if dtype.kind != "O":
        return np.ndarray(shape, dtype, items)
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)


def size_of(item: Content) -> int:
    """Bytes of it, about."""
    _, dtype, _, items = item
    return sum(map(len, items)) if dtype.kind == "O" else len(items)


def storable(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Members that load without pickle: strings as all their bytes and their lengths, bfloat16 as its bits."""
    if array.dtype.kind in "OS":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        lengths = np.asarray([len(item) for item in items], np.int64).reshape(array.shape)
        return {name: np.frombuffer(b"".join(items), np.uint8), f"lengths/{name}": lengths}
    return {name: array.view(np.uint16) if array.dtype.name == "bfloat16" else array}
