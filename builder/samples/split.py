"""Rows kept apart for calibration: int8 is judged on others than those it was made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.samples.file import SampleRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SplitRule:
    """At most `rows` rows, never more than half, drawn by `seed`."""

    rows: int
    seed: int


def split_rows(rows: SampleRows, rule: SplitRule, batch: int, name: str) -> tuple[SampleRows, SampleRows]:
    """(rows to judge on, rows to calibrate on), each in the file's order; every class is in both where labels tell.

    Both are whole batches of `batch` rows, so far as the file's rows are.

    Raises:
        SpecError: there are too few.
    """
    import numpy as np

    wanted = min(rule.rows, rows.count // 2)
    wanted = max(batch, wanted // batch * batch)
    if rows.count < wanted + batch:
        raise SpecError(
            f"samples {name} holds {rows.count} row{'s' if rows.count > 1 else ''}: int8 calibrates on one part and "
            "is judged on another",
            remedy=f"give at least {2 * batch} rows, better some hundred"
            + ("" if batch == 1 else f" (the model runs with batches of {batch} only)"),
        )
    order = _mixed(rows, rule.seed)
    return _taken(rows, np.sort(order[wanted:])), _taken(rows, np.sort(order[:wanted]))


def _mixed(rows: SampleRows, seed: int) -> NDArray[np.int64]:
    """A permutation in which the classes of the labels are spread evenly."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(rows.count)
    if rows.labels is None:
        return order
    labels = rows.labels[order]
    place = np.empty(rows.count)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (np.arange(members.size) + 0.5) / members.size
    spread: NDArray[np.int64] = order[np.argsort(place, kind="stable")]
    return spread


def _taken(rows: SampleRows, index: NDArray[np.int64]) -> SampleRows:
    return replace(
        rows,
        arrays={name: array[index] for name, array in rows.arrays.items()},
        labels=None if rows.labels is None else rows.labels[index],
        count=int(index.size),
    )
