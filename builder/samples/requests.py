"""Sample inputs cut into requests of the batch sizes that the source runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from builder import defaults
from builder.errors import BuildRepoError, SpecError
from builder.samples import Request
from builder.samples.batch_probe import take_rows
from builder.samples.file import SampleRows
from builder.samples.making import RandomRecipe, free_axes
from builder.samples.split import SplitRule, split_rows
from builder.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]
    Piece = tuple[dict[str, Array], Array | None]

REQUESTS: Final = 6
"""Random requests where any size varies."""
FIXED_REQUESTS: Final = 4
"""Random requests where every size is fixed."""


@dataclass(frozen=True, slots=True)
class RandomSamples:
    """Random requests by a recipe."""

    recipe: RandomRecipe
    max_batch_size: int

    @property
    def notes(self) -> tuple[str, ...]:
        return self.recipe.notes

    @property
    def origin(self) -> str:
        """Where the samples came from, for the report."""
        return f"random, seed {self.recipe.seed}"

    def pool(self) -> dict[str, Array]:
        """Rows to probe batches with."""
        rows = max(self.max_batch_size or defaults.MAX_BATCH_SIZE, defaults.ODD_BATCH, self.recipe.batch)
        return self.recipe.make(rows, self.recipe.sizes[0])

    def fixed(self, inputs: tuple[Tensor, ...], size: int) -> RandomSamples:
        """The same with the batch axis fixed."""
        return replace(self, recipe=replace(self.recipe, inputs=inputs, batch=size))

    def requests(self, sizes: Sequence[int]) -> list[Piece]:
        """Requests that vary every dynamic axis; `sizes` are the batch sizes, none without a batch axis."""
        lengths = self.recipe.sizes
        varied = len(sizes) > 1 or len(lengths) > 1
        count = max(REQUESTS if varied else FIXED_REQUESTS, len(sizes), len(lengths))
        batches = tuple(sizes) or (1,)
        pieces: list[Piece] = []
        for number in range(count):
            turn = number + number // len(batches)
            arrays = self.recipe.make(batches[number % len(batches)], lengths[turn % len(lengths)], number + 1)
            pieces.append((arrays, None))
        return pieces


@dataclass(frozen=True, slots=True)
class FileSamples:
    """The user's rows. `size` is the batch size where only one runs; by `rule` some rows are still to be kept apart."""

    name: str
    inputs: tuple[Tensor, ...]
    rows: SampleRows
    size: int | None = None
    rule: SplitRule | None = None
    apart: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        return self.rows.notes

    @property
    def origin(self) -> str:
        """Where the samples came from, for the report."""
        return f"{self.name}, {self.rows.count} rows{self.apart}"

    def split(self) -> tuple[FileSamples, FileSamples | None]:
        """The rows to judge on, and those to calibrate on where some are wanted.

        Raises:
            SpecError: there are too few for both.
        """
        if self.rule is None:
            return self, None
        judged, calibrating = split_rows(self.rows, self.rule, self.size or 1, self.name)
        apart = f", {calibrating.count} others calibrate int8 (split by seed {self.rule.seed})"
        return (
            replace(self, rows=judged, rule=None, apart=apart),
            replace(self, rows=calibrating, rule=None),
        )

    def pool(self) -> dict[str, Array]:
        """Rows to probe batches with."""
        return self.rows.arrays

    def fixed(self, inputs: tuple[Tensor, ...], size: int) -> FileSamples:
        """The same with the batch axis fixed."""
        return replace(self, inputs=inputs, size=size)

    def requests(self, sizes: Sequence[int]) -> list[Piece]:
        """The rows cut into the batch sizes; without a batch axis each entry is one request."""
        if not sizes and self.size is None:
            return [
                # Not array[row]: that makes numbers and texts of rank-0 entries.
                (
                    {name: array[row : row + 1].reshape(array.shape[1:]) for name, array in self.rows.arrays.items()},
                    self._labels(row, 1),
                )
                for row in range(self.rows.count)
            ]
        cuts = cut_sizes(self.rows.count, sizes or (self.size or 1,))
        if not cuts:
            raise SpecError(
                f"samples {self.name} holds {self.rows.count} rows; the model runs at batch sizes "
                f"{', '.join(map(str, sizes or (self.size,)))} only",
                remedy="give at least that many rows",
            )
        pieces = []
        start = 0
        for size in cuts:
            pieces.append((take_rows(self.rows.arrays, start, size), self._labels(start, size)))
            start += size
        return pieces

    def _labels(self, start: int, count: int) -> Array | None:
        return None if self.rows.labels is None else self.rows.labels[start : start + count]


def cut_sizes(count: int, sizes: Sequence[int]) -> list[int]:
    """Batch sizes that use up `count` rows: each accepted one once, then the largest, then what is left."""
    cuts: list[int] = []
    ascending = sorted(sizes)
    while count > 0:
        wanted = ascending[min(len(cuts), len(ascending) - 1)]
        fitting = [size for size in ascending if size <= min(wanted, count)]
        if not fitting:
            break
        cuts.append(fitting[-1])
        count -= fitting[-1]
    return cuts


def cropped(run: Callable[[Arrays], Request], inputs: tuple[Tensor, ...], base: Arrays) -> list[Request]:
    """Answers to one sample with each dynamic axis cut shorter, where the source takes that."""
    found = []
    for name in free_axes(inputs):
        size = next(base[t.name].shape[axis] for t in inputs for axis in t.dynamic_axes if t.shape[axis] == name)
        for shorter in dict.fromkeys((size // 2, size - 1, size // 2 // 32 * 32, size * 3 // 4, size // 4)):
            if not 0 < shorter < size:
                continue
            try:
                found.append(run(_crop(inputs, base, name, shorter)))
            except BuildRepoError:
                continue
            break
    return found


def _crop(inputs: Sequence[Tensor], base: Arrays, name: str, size: int) -> dict[str, Array]:
    cut: dict[str, Array] = {}
    for tensor in inputs:
        places = tuple(slice(size) if dim == name else slice(None) for dim in tensor.shape)
        cut[tensor.name] = base[tensor.name][places]
    return cut
