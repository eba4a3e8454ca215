"""How far single numbers are off, counted in classes of half a power of ten."""

from __future__ import annotations

import math

import numpy as np
import pytest

from builder.compare import compare_outputs, merge_errors
from builder.deviations import CLASSES, EDGES, count_deviations, spans, summed, within
from builder.tensors import Signature, Tensor

SIGNATURE = Signature((), (Tensor("y", "float32", (-1,)), Tensor("n", "int64", (-1,))))


def place(deviation: float) -> int:
    counts = count_deviations(np.array([deviation]), 1.0)
    assert counts.sum() == 1 and len(counts) == CLASSES
    return int(np.argmax(counts))


@pytest.mark.parametrize("deviation", [1e-12, 2e-8, 0.5e-3, 0.02, 0.99, 1.0, 50.0])
def test_a_number_falls_into_the_class_that_spans_it(deviation: float) -> None:
    low, high = list(spans())[place(deviation) - 1]
    assert low <= deviation or deviation < EDGES[0]
    assert deviation < high or deviation >= EDGES[-1]


def test_equal_is_a_class_of_its_own_and_infinite_the_last() -> None:
    assert place(0.0) == 0
    assert place(math.inf) == CLASSES - 1
    assert len(list(spans())) == CLASSES - 1


def test_a_comparison_counts_finite_elements_relative_to_the_largest_value() -> None:
    source = {"y": np.array([100, 50, 0, np.nan, 1], np.float32), "n": np.array([1], np.int64)}
    served = {"y": np.array([100, 49, 0.002, np.nan, np.inf], np.float32), "n": np.array([2], np.int64)}
    plain = compare_outputs(SIGNATURE, [source], [served])
    floats, integers = compare_outputs(SIGNATURE, [source], [served], counted=True)
    assert [item.deviations for item in plain] == [(), ()]
    assert integers.deviations == ()
    assert sum(floats.deviations) == 3, "of five elements two are not finite"
    assert (floats.deviations[0], floats.deviations[place(0.01)], floats.deviations[place(2e-5)]) == (1, 1, 1)
    assert merge_errors([(floats,), (floats,)])[0].deviations == tuple(2 * count for count in floats.deviations)
    nothing = {"y": np.zeros(2, np.float32), "n": np.array([1], np.int64)}
    assert compare_outputs(SIGNATURE, [nothing], [nothing], counted=True)[0].deviations == (), "relative to nothing"


def test_within_is_an_edge_that_holds_the_share() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(5000)) * 1e-3
    counts = count_deviations(values, 1.0).tolist()
    for share in (0.1, 0.5, 0.99, 1.0):
        edge = within(counts, share)
        exact = float(np.quantile(values, share))
        assert exact <= edge <= exact * 10**0.5 * 1.01
    assert within([10, *[0] * (CLASSES - 1)], 0.99) == 0.0
    assert within([*[0] * (CLASSES - 1), 3], 0.5) == math.inf


def test_sums_leave_out_what_was_not_counted() -> None:
    assert summed([(1, 2), (), (3, 4)]) == (4, 6)
    assert summed([(), ()]) == ()
