"""How far single numbers of an answer are from the source's, counted in classes; for the report's histogram."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECADES: Final = 8
EDGES: Final = tuple(float(10 ** (step / 2)) for step in range(-2 * DECADES, 1))
"""Half powers of ten from 1e-8 to 1, of |served - source| over the largest |source| of the output."""
CLASSES: Final = len(EDGES) + 2
"""Equal; below the first edge; from each edge to the next; from the last edge on."""
Counts = tuple[int, ...]


def count_deviations(absolute: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    """How many elements fall into each class; `scale` is over 0."""
    import numpy as np

    unequal = absolute[absolute > 0.0] / scale
    # What searchsorted would say, several times faster: the edges are even in the logarithm.
    steps = np.clip(np.floor(2 * np.log10(unequal)) + 2 * DECADES, -1, 2 * DECADES).astype(np.int64)
    counts = np.bincount(steps + 2, minlength=CLASSES)
    counts[0] = absolute.size - unequal.size
    return counts


def summed(every: Iterable[Sequence[int]]) -> Counts:
    """The counts of several comparisons together; empty where nothing was counted."""
    return tuple(map(sum, zip(*filter(None, every), strict=True)))


def within(counts: Sequence[int], share: float) -> float:
    """The edge below which at least this share of the elements deviates; 0.0: so many are equal, inf: beyond all."""
    needed, seen = share * sum(counts), 0
    for number, upper in zip(counts, (0.0, *EDGES, float("inf")), strict=True):
        seen += number
        if seen >= needed:
            return upper
    return float("inf")


def spans() -> Iterator[tuple[float, float]]:
    """Lower and upper edge of each class but the first, each half a power of ten wide."""
    half = 10.0**0.5
    yield EDGES[0] / half, EDGES[0]
    yield from zip(EDGES, (*EDGES[1:], EDGES[-1] * half), strict=True)
