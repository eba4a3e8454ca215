"""One tensor of an ensemble as each of its ends declares it: whether they go together, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from builder.tensors import Dim, Tensor

BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Use:
    """A tensor of the ensemble as one port of a member declares it."""

    step: int
    member: str
    verb: str
    port: Tensor

    def describe(self) -> str:
        return f"{self.member} {self.verb} {self.port.describe()}"


def difference(left: Tensor, right: Tensor) -> str:
    """Why two ends of a tensor do not go together; empty where they do."""
    if left.dtype != right.dtype:
        return f"the dtypes {left.dtype} and {right.dtype} differ"
    ours, theirs = left.wire_shape or (1,), right.wire_shape or (1,)
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} dimensions"
    pairs = list(zip(ours, theirs, strict=True))
    axis = next((axis for axis, pair in enumerate(pairs) if -1 not in pair and pair[0] != pair[1]), None)
    return "" if axis is None else f"axis {axis} is {pairs[axis][0]} and {pairs[axis][1]}"


def border_tensors(uses: Mapping[str, Sequence[Use]], names: Sequence[str]) -> Iterator[Tensor]:
    """Sizes that any end fixes, and axes named by their member; all first axes of any size are one, the batch's."""
    shapes = {name: _merged(uses[name]) for name in names}
    batched = all(shape and not isinstance(shape[0][1], int) for shape in shapes.values())
    owners: dict[str, int] = {}
    for name in names:
        shape: list[Dim] = []
        for axis, (step, dim) in enumerate(shapes[name]):
            if isinstance(dim, int):
                shape.append(dim)
            elif axis == 0 and batched:
                shape.append(BATCH)
            else:
                mine = owners.setdefault(dim, step) == step and not (batched and dim == BATCH)
                shape.append(dim if mine else f"{dim}_{step + 1}")
        yield Tensor(name, uses[name][0].port.dtype, tuple(shape))


def _merged(uses: Sequence[Use]) -> list[tuple[int, Dim]]:
    """(step, size or name) of each axis."""
    shape = [(uses[0].step, dim) for dim in uses[0].port.shape]
    for use in uses[1:]:
        for axis, dim in enumerate(use.port.shape):
            if axis < len(shape) and isinstance(dim, int) and not isinstance(shape[axis][1], int):
                shape[axis] = (use.step, dim)
    return shape
