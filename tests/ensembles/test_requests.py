"""What an ensemble is asked when it has no samples of its own."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import signature

from builder.ensembles.requests import fixed_rows, members_inputs, request_sizes
from builder.ensembles.wiring import WiredStep
from builder.samples import Request

A = WiredStep("a", (("x", "first"),), (("y", "mid"),))
B = WiredStep("b", (("h", "mid"), ("k", "second")), (("z", "end"),))
TWO = signature(["first:float32:batch,2", "second:int64:batch,1"], ["end:float32:batch,2"])


def rows(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + 2 * count, dtype=np.float32).reshape(count, 2)


def test_one_member_is_asked_its_own_requests_within_the_limit() -> None:
    known = {"a": [Request({"x": rows(1)}, {}, 1), Request({"x": rows(5, 10)}, {}, 5)]}
    ports = signature(["first:float32:batch,2"], ["mid:float32:batch,2"])
    found = members_inputs(ports, [A], known, 4)
    assert [len(arrays["first"]) for arrays in found] == [1, 4, 1]
    np.testing.assert_array_equal(np.concatenate([arrays["first"] for arrays in found]), [*rows(1), *rows(5, 10)])


def test_rows_of_two_members_go_side_by_side() -> None:
    known = {
        "a": [Request({"x": rows(2)}, {}, 2), Request({"x": rows(3, 10)}, {}, 3)],
        "b": [Request({"h": rows(4), "k": np.arange(4).reshape(4, 1)}, {}, 4)],
    }
    found = members_inputs(TWO, [A, B], known, 3)
    assert [(len(arrays["first"]), len(arrays["second"])) for arrays in found] == [(1, 1), (2, 2), (1, 1)]
    np.testing.assert_array_equal(np.concatenate([arrays["second"] for arrays in found]).ravel(), range(4))
    assert all(set(arrays) == {"first", "second"} for arrays in found)


def test_without_a_batch_axis_whole_requests_are_asked() -> None:
    ports = signature(["first:float32:2,2"], ["mid:float32:2,2"])
    known = {"a": [Request({"x": rows(2)}, {}, 0), Request({"x": rows(2, 9)}, {}, 0)]}
    found = members_inputs(ports, [A], known, 1)
    assert [arrays["first"].shape for arrays in found] == [(2, 2), (2, 2)]


def test_one_batch_size_where_a_member_is_fixed_to_it() -> None:
    signatures = {
        "a": signature(["x:float32:batch,2"], ["y:float32:batch,2"]),
        "b": signature(["h:float32:3,2", "k:int64:3,1"], ["z:float32:3,2"]),
    }
    assert fixed_rows([A], signatures) is None
    assert fixed_rows([A, B], signatures) == 3
    ports = signature(["first:float32:batch,2", "second:int64:3,1"], ["end:float32:3,2"])
    known = {
        "a": [Request({"x": rows(2)}, {}, 2), Request({"x": rows(5, 10)}, {}, 5)],
        "b": [Request({"k": np.arange(3).reshape(3, 1)}, {}, 0)] * 2,
    }
    found = members_inputs(ports, [A, B], known, 8, 3)
    assert [(len(arrays["first"]), len(arrays["second"])) for arrays in found] == [(3, 3), (3, 3)]


@pytest.mark.parametrize(("limit", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 3, 8))])
def test_sizes_that_are_asked(limit: int, sizes: tuple[int, ...]) -> None:
    assert request_sizes(limit) == sizes
