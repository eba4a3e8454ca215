"""Rows to calibrate on and rows to judge on are different ones."""

from __future__ import annotations

import numpy as np
import pytest

from builder.errors import SpecError
from builder.samples.file import SampleRows
from builder.samples.requests import FileSamples
from builder.samples.split import SplitRule, split_rows
from builder.tensors import Tensor

INPUTS = (Tensor("x", "float32", ("batch", 1)),)


def rows(count: int, labels: np.ndarray | None = None) -> SampleRows:
    return SampleRows({"x": np.arange(count, dtype=np.float32)[:, None]}, labels, count)


def members(part: SampleRows) -> list[int]:
    return part.arrays["x"][:, 0].astype(int).tolist()


@pytest.mark.parametrize(("count", "asked", "calibrating"), [(2, 300, 1), (9, 300, 4), (100, 30, 30), (100, 50, 50)])
def test_the_parts_are_disjoint_and_together_everything(count: int, asked: int, calibrating: int) -> None:
    judged, apart = split_rows(rows(count), SplitRule(asked, 0), 1, "s.npz")
    assert len(members(apart)) == apart.count == calibrating
    assert sorted(members(judged) + members(apart)) == list(range(count))
    assert members(judged) == sorted(members(judged))


def test_the_seed_decides() -> None:
    def drawn(seed: int) -> list[int]:
        return members(split_rows(rows(100), SplitRule(30, seed), 1, "s.npz")[1])

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0) != list(range(30))


def test_every_class_is_in_both_parts() -> None:
    labels = np.repeat(np.arange(5), [60, 20, 10, 8, 2])
    judged, apart = split_rows(rows(100, labels), SplitRule(50, 3), 1, "s.npz")
    assert np.bincount(apart.labels).tolist() == [30, 10, 5, 4, 1]
    assert np.bincount(judged.labels).tolist() == [30, 10, 5, 4, 1]
    assert all(labels[index] == label for index, label in zip(members(apart), apart.labels, strict=True))


def test_a_model_of_one_batch_size_gets_whole_batches() -> None:
    judged, apart = split_rows(rows(22), SplitRule(300, 0), 4, "s.npz")
    assert (judged.count, apart.count) == (14, 8)
    assert split_rows(rows(9), SplitRule(1, 0), 4, "s.npz")[1].count == 4
    with pytest.raises(SpecError, match=r"s\.npz holds 7 rows") as raised:
        split_rows(rows(7), SplitRule(300, 0), 4, "s.npz")
    assert "at least 8 rows" in raised.value.remedy


def test_one_row_is_refused_with_the_remedy() -> None:
    with pytest.raises(SpecError, match="holds 1 row: int8 calibrates on one part") as raised:
        split_rows(rows(1), SplitRule(300, 0), 1, "s.npz")
    assert "at least 2 rows" in raised.value.remedy


def test_what_is_said_of_the_samples() -> None:
    whole = FileSamples("s.npz", INPUTS, rows(10), rule=SplitRule(4, 7))
    judged, apart = whole.split()
    assert judged.origin == "s.npz, 6 rows, 4 others calibrate int8 (split by seed 7)"
    assert apart is not None
    assert apart.rows.count == 4
    assert judged.split() == (judged, None)
    assert FileSamples("s.npz", INPUTS, rows(10)).split()[1] is None
