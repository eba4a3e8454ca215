"""Whether the rows of a batch get the answers that the same rows get alone, found by running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from builder.measurement import BatchProof
from builder.samples import Request
from builder.tensors import BY_NUMPY, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]
    Run = Callable[[Arrays], Arrays]

TOLERANCE: Final = 1e-3
"""Share of an output's largest magnitude by which a row may move with the batch around it.

Libraries choose other kernels and another order of summation for another batch size, which moves float32 results by
some 1e-6 a layer; rows that really see each other differ by far more.
"""
HALF_TOLERANCE: Final = 2e-2
"""The same where the library computes in, or answers in, 16 bits: one rounding alone is 4e-3 in bfloat16."""


def batch_rows(requests: Sequence[Request], count: int) -> Arrays | None:
    """The inputs of up to `count` rows of one form, as one batch, at least two of them different.

    None where no request has rows. Where the samples hold a single row, its mirror image along the last axis joins it:
    equal rows would prove nothing.
    """
    import numpy as np

    groups: dict[object, list[Arrays]] = {}
    for request in requests:
        if request.rows > 0:
            form = tuple((name, array.shape[1:]) for name, array in request.inputs.items())
            groups.setdefault(form, []).append(request.inputs)
    if not groups:
        return None
    group = max(groups.values(), key=lambda members: min(count, sum(_rows(inputs) for inputs in members)))
    needed = _first_rows(group, count)
    rows = {name: np.concatenate([inputs[name] for inputs in needed])[:count] for name in needed[0]}
    return rows if _has_different_rows(rows) else {name: _with_mirror(array) for name, array in rows.items()}


def _rows(inputs: Arrays) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _first_rows(group: Sequence[Arrays], count: int) -> list[Arrays]:
    """As many members, the largest batches first, as give `count` rows; big samples are not all joined."""
    chosen: list[Arrays] = []
    for inputs in sorted(group, key=_rows, reverse=True):
        if sum(_rows(member) for member in chosen) >= count:
            break
        chosen.append(inputs)
    return chosen


def _has_different_rows(rows: Arrays) -> bool:
    return any((array[1:] != array[:1]).any() for array in rows.values())


def _with_mirror(array: Array) -> Array:
    import numpy as np

    mirror = np.flip(array[:1], axis=-1) if array.ndim > 1 else array[:1]
    return np.concatenate([array[:1], mirror])


def cut(rows: Arrays, indices: Sequence[int]) -> Arrays:
    """The rows at `indices`, counted around where there are fewer."""
    return {name: array[[index % array.shape[0] for index in indices]] for name, array in rows.items()}


def prove_batch(
    run: Run, signature: Signature, rows: Arrays, sizes: Sequence[int], *, tolerance: float = TOLERANCE
) -> BatchProof:
    """Run every size and compare each row with the same row alone; a library's refusal is part of the result."""
    available = min(_rows(rows), max(sizes))
    refused: list[tuple[int, str]] = []
    alone: list[Arrays] = []
    try:
        alone.extend(run(cut(rows, [index])) for index in range(available))
    except Exception as error:
        refused.append((1, _first_line(error)))
    reason = "" if alone else f"a batch of 1 is refused: {refused[0][1]}"
    reason = reason or next((text for answer in alone if (text := _count_problem(signature, answer, 1))), "")
    for size in sorted(set(sizes)):
        if reason:
            break
        try:
            answer = run(cut(rows, range(size)))
        except Exception as error:
            refused.append((size, _first_line(error)))
            continue
        reason = _difference(signature, answer, alone, size, tolerance)
    if refused and not reason:
        reason = f"a batch of {refused[0][0]} is refused: {refused[0][1]}"
    return BatchProof(not reason, tuple(sorted(set(sizes))), reason, refused=tuple(refused))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _count_problem(signature: Signature, answer: Arrays, size: int) -> str:
    for tensor in signature.outputs:
        shape = answer[tensor.name].shape
        if not shape or shape[0] != size:
            got = f"{shape[0]} rows" if shape else "no rows at all"
            return f"output '{tensor.name}' has {got} for {size} rows of input"
    return ""


def _difference(signature: Signature, answer: Arrays, alone: Sequence[Arrays], size: int, tolerance: float) -> str:
    problem = _count_problem(signature, answer, size)
    if problem:
        return problem
    for tensor in signature.outputs:
        rows = [alone[index % len(alone)][tensor.name] for index in range(size)]
        batch = answer[tensor.name]
        if any(batch[index : index + 1].shape != row.shape for index, row in enumerate(rows)):
            shapes = f"{list(batch.shape[1:])} in a batch of {size} and {list(rows[0].shape[1:])} alone"
            return f"a row of output '{tensor.name}' has the shape {shapes}"
        if not BY_NUMPY[tensor.dtype].is_float:
            unequal = sum(int((batch[index : index + 1] != row).sum()) for index, row in enumerate(rows))
            if unequal:
                return f"{unequal} elements of output '{tensor.name}' change with the batch of {size} around a row"
            continue
        worst = row_distance(batch, rows)
        if not worst <= max(tolerance, HALF_TOLERANCE if tensor.dtype in ("float16", "bfloat16") else 0.0):
            share = f"{worst:.2g} of its largest magnitude"
            return f"output '{tensor.name}' moves by {share} with the batch of {size} around a row"
    return ""


def row_distance(batch: Array, rows: Sequence[Array]) -> float:
    """Largest difference over the largest magnitude; infinite where only one side is NaN or infinite."""
    import numpy as np

    worst = scale = 0.0
    for index, row in enumerate(rows):
        left, right = batch[index : index + 1].astype(np.float64), row.astype(np.float64)
        with np.errstate(invalid="ignore"):
            gap = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, np.abs(left - right))
        worst = max(worst, float(np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0)))
        scale = max(scale, float(np.max(np.abs(right), where=np.isfinite(right), initial=0.0)))
    if not worst:
        return 0.0
    return worst / scale if scale else float("inf")
