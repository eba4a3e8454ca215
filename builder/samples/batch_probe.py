"""Which batch sizes a source runs, and whether the rows of a batch are independent: found by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from builder import defaults
from builder.errors import SpecError
from builder.measurement import BatchProof
from builder.onnx_tools.reading import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]
    Outputs = tuple[Array, ...]

Run = Callable[["Arrays"], "tuple[Array, ...]"]

NameOf = Callable[[int], str]

MORE_SIZES: Final = (4, 8, 16, 32)
"""Tried where a single row is refused."""
TOLERANCE: Final = 1e-3
"""Largest difference between a row in a batch and alone, as a share of the output's largest magnitude."""
STEPS: Final = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""From one value of the type to the next, as a share of it."""
ROWS_CHANGE: Final = "rows change with their batch"
NO_BATCH_AXIS: Final = "the model has no batch axis"


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen: the proof, the batch sizes that run, and `fixed` where only that one does."""

    proof: BatchProof
    sizes: tuple[int, ...]
    fixed: int | None = None
    answers: dict[int, tuple[Array, ...]] = field(default_factory=dict)


def probe_sizes(max_batch_size: int) -> tuple[int, ...]:
    """1, 2, an odd number and the maximum."""
    return tuple(sorted({1, 2, defaults.ODD_BATCH, max_batch_size or defaults.MAX_BATCH_SIZE}))


def take_rows(pool: Arrays, start: int, count: int) -> dict[str, Array]:
    """`count` rows from `start` on, beginning anew where the pool ends."""
    import numpy as np

    return {name: np.take(array, range(start, start + count), axis=0, mode="wrap") for name, array in pool.items()}


def probe_batches(run: Run, pool: Arrays, max_batch_size: int, name_of: NameOf = "output {}".format) -> Probe:
    """Run batches of the pool's rows, and the same rows alone; `name_of` names the output at a place in reasons.

    Raises:
        SpecError: no batch size runs.
    """
    answers: dict[int, Outputs] = {}
    refused: dict[int, str] = {}
    ours: list[SpecError] = []
    wanted = probe_sizes(max_batch_size)
    for size in (*wanted, *MORE_SIZES):
        if size in answers or size in refused or (size not in wanted and 1 in answers):
            continue
        try:
            answers[size] = run(take_rows(pool, 0, size))
        except Exception as error:
            refused[size] = short(error)
            ours += [error] if isinstance(error, SpecError) else []
    if not answers:
        if len(ours) == len(refused):
            raise ours[0]  # what is wrong is no sample, and it says what to change
        raise SpecError(
            f"the model refuses the samples at every batch size tried ({', '.join(map(str, refused))}): {refused[1]}",
            remedy="give samples that the model accepts, or correct inputs:",
        )
    _refuse_odd_ranks(answers, refused, name_of)
    sizes = tuple(sorted(answers))
    fixed = sizes[0] if len(sizes) == 1 else None
    reason = (
        _size_problem(sizes, refused) or _rows_problem(answers, name_of) or _mixing_problem(run, pool, answers, name_of)
    )
    proof = BatchProof(proven=not reason, sizes=sizes, reason=reason, refused=tuple(sorted(refused.items())))
    return Probe(proof, sizes, fixed, answers)


def _refuse_odd_ranks(answers: dict[int, Outputs], refused: dict[int, str], name_of: NameOf) -> None:
    """A size at which an output has another rank than at the largest size cannot be served beside it."""
    ranks = [value.ndim for value in answers[max(answers)]]
    for size, outputs in list(answers.items()):
        for place, (value, rank) in enumerate(zip(outputs, ranks, strict=False)):
            if value.ndim != rank and size in answers:
                refused[size] = f"{name_of(place)} has rank {value.ndim} there, {rank} at batch size {max(answers)}"
                del answers[size]


def _size_problem(sizes: Sequence[int], refused: Mapping[int, str]) -> str:
    if not refused:
        return ""
    size, message = min(refused.items())
    shown = ", ".join(map(str, sorted(refused)))
    return f"runs only at batch sizes {', '.join(map(str, sizes))}; refuses {shown} ({size}: {message})"


def _rows_problem(answers: Mapping[int, Outputs], name_of: NameOf) -> str:
    for size, outputs in sorted(answers.items()):
        for place, value in enumerate(outputs):
            if value.ndim == 0:
                return f"{name_of(place)} is one number, whatever the batch size"
            if value.shape[0] != size:
                return f"{name_of(place)} has {value.shape[0]} rows for a batch of {size}"
    return ""


def _mixing_problem(run: Run, pool: Arrays, answers: Mapping[int, Outputs], name_of: NameOf) -> str:
    """Why rows in a batch are not the rows alone; empty when they are."""
    import numpy as np

    try:
        alone = [run(take_rows(pool, row, 1)) for row in range(max(answers))]
    except Exception as error:
        return f"a row runs in a batch and not alone: {short(error)}"
    for size, outputs in sorted(answers.items()):
        for place, value in enumerate(outputs):
            rows = [alone[row][place] for row in range(size)]
            other = next((row for row in rows if row.shape[1:] != value.shape[1:]), None)
            if other is not None:
                return f"{name_of(place)} has shape {list(value.shape)} in a batch of {size}, {list(other.shape)} alone"
            difference = row_difference(np.concatenate(rows), value)
            if difference > TOLERANCE:
                return f"{ROWS_CHANGE}: {name_of(place)} differs by {difference:.2g} at batch size {size}"
    return ""


def row_difference(alone: Array, batch: Array) -> float:
    """Largest difference as a share of the largest magnitude; for anything but floats 1.0 where any element differs.

    A half that was rounded the other way is no difference.
    """
    import numpy as np

    if alone.dtype.kind != "f" and alone.dtype.name != "bfloat16":
        return 0.0 if bool((alone == batch).all()) else 1.0
    left, right = alone.astype(np.float64), batch.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if bool(same.all()):
        return 0.0
    if not bool((np.isfinite(left) & np.isfinite(right))[~same].all()):
        return float("inf")
    same |= np.abs(left - right) <= STEPS.get(alone.dtype.name, 0.0) * np.maximum(np.abs(left), np.abs(right))
    scale = max(float(np.abs(side[np.isfinite(side)]).max(initial=0.0)) for side in (left, right))
    return float(np.abs(left - right)[~same].max(initial=0.0)) / max(scale, TOLERANCE * TOLERANCE)
