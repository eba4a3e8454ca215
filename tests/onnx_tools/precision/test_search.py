"""The search itself, on gates whose answer is known, and the ranking of a graph's nodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import planted_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from small_graphs import random_inputs, signature, write_graph

from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.half import LARGEST, emulate
from builder.onnx_tools.precision.search import Found, Judge, Node, Ranking, Verdict, find_kept, nodes_of, rank_nodes

NODES = tuple(Node(f"n{place}", "Mul") for place in range(60))
NAMES = [node.name for node in NODES]


def needs(*wanted: str) -> tuple[Judge, list[frozenset[str]]]:
    """Gates that are met when these nodes are kept, and what they were asked."""
    asked: list[frozenset[str]] = []

    def judge(kept: frozenset[str]) -> Verdict:
        asked.append(kept)
        missing = len(set(wanted) - kept)
        return Verdict(missing == 0, 0.5 + 2 * missing)

    return judge, asked


def search(
    judge: Judge, ranked: list[str] | None = None, budget_s: float = 60, always: tuple[str, ...] = (), first: int = 1
) -> Found:
    ranking = Ranking(tuple(NAMES if ranked is None else ranked), first)
    return find_kept(NODES, lambda: ranking, judge, budget_s, frozenset(always))


def names(found: Found) -> set[str]:
    return {node.name for node in found.kept}


def test_a_graph_that_meets_its_gates_is_asked_once() -> None:
    judge, asked = needs()
    found = search(judge)
    assert (found.kept, found.verdict.passes, found.finished, len(asked)) == ((), True, True, 1)


@given(wanted=st.sets(st.sampled_from(NAMES), max_size=8), order=st.permutations(NAMES), first=st.integers(1, 60))
def test_exactly_the_needed_nodes_are_found_whatever_the_ranking(
    wanted: set[str], order: list[str], first: int
) -> None:
    found = search(needs(*wanted)[0], order, first=first)
    assert names(found) == wanted
    assert found.finished
    assert all(node.gain == 2.0 for node in found.kept), "what the worst error falls by"
    assert [node.name for node in found.kept] == [name for name in NAMES if name in wanted], "the graph's order"


def test_a_good_ranking_needs_few_questions_and_each_only_once() -> None:
    """Where answers are no numbers without them, nodes are not asked for one by one."""
    met, asked = needs("n7", "n20", "n41")

    def judge(kept: frozenset[str]) -> Verdict:
        found = met(kept)
        return found if found.passes else Verdict(passes=False, excess=math.inf)

    search(judge, ["n7", "n20", "n41", *(name for name in NAMES if name not in ("n7", "n20", "n41"))], first=3)
    assert len(asked) == len(set(asked)) <= 8


def test_either_of_two_nodes_will_do_and_only_one_is_kept() -> None:
    found = search(lambda kept: Verdict("n3" in kept or "n4" in kept, 3.0))
    assert names(found) == {"n3"}


def test_what_each_node_gives_the_answers_decides_not_its_error_inside() -> None:
    """Errors that add up to 3.1 times the gate: the two large ones are the fewest to keep, however they were ranked."""
    errors = dict.fromkeys(NAMES, 0.01) | {"n10": 0.75, "n20": 0.7} | {f"n{place}": 0.15 for place in range(40, 50)}

    def judge(kept: frozenset[str]) -> Verdict:
        excess = sum(error for name, error in errors.items() if name not in kept)
        return Verdict(excess <= 2.0, excess)

    assert names(search(judge)) == {"n10", "n20"}
    assert names(search(judge, [*NAMES[40:50], *NAMES[:40], *NAMES[50:]])) == {"n10", "n20"}


def test_what_is_always_kept_is_never_left_out() -> None:
    found = search(needs("n9")[0], always=("n2",))
    assert {node.name: node.gain for node in found.kept} == {"n2": math.inf, "n9": 2.0}


def test_no_set_helps() -> None:
    found = search(lambda kept: Verdict(passes=False, excess=100.0 - len(kept)))
    assert (found.verdict.passes, found.finished) == (False, True)
    assert len(found.kept) == len(NODES), "the smallest error there is"


def slow(judge: Judge, seconds: float) -> Judge:
    def wait(kept: frozenset[str]) -> Verdict:
        time.sleep(seconds)
        return judge(kept)

    return wait


@pytest.mark.parametrize("budget_s", [0.05, 0.4])
def test_the_time_is_kept_and_what_was_found_counts(budget_s: float) -> None:
    started = time.monotonic()
    found = search(slow(needs("n50")[0], 0.03), budget_s=budget_s)
    assert time.monotonic() - started < budget_s + 1
    assert not found.finished
    assert not found.verdict.passes or "n50" in names(found)


def test_without_a_budget_nothing_is_searched() -> None:
    judge, asked = needs("n1")
    found = search(judge, budget_s=0)
    assert (names(found), found.verdict.passes, len(asked)) == (set(), False, 1)


def ranked(tmp_path: Path, plant: Callable[[Path], frozenset[str]]) -> tuple[Ranking, frozenset[str]]:
    exact, low = tmp_path / "m.onnx", tmp_path / "low.onnx"
    planted = plant(exact)
    job = PrecisionJob("fp16", "onnx", planted_models.PORTS, None, None, tmp_path, 18, 9)
    emulate(exact, low, job, frozenset())
    inputs = [random_inputs(planted_models.PORTS, rows, rows) for rows in (1, 3)]
    return rank_nodes(exact, low, inputs, LARGEST["fp16"], 60), planted


def test_nodes_that_leave_the_range_come_first(tmp_path: Path) -> None:
    ranking, planted = ranked(tmp_path, planted_models.chain)
    assert set(ranking.names[: ranking.first]) == planted
    assert sorted(ranking.names) == sorted(node.name for node in nodes_of(tmp_path / "m.onnx"))


def test_then_the_node_that_adds_the_largest_error(tmp_path: Path) -> None:
    """The difference of two nearly equal numbers loses what rounding left of them."""
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "large"], ["sum"], name="add"),
        helper.make_node("Sub", ["sum", "large"], ["y"], name="subtract"),
    ]
    exact = write_graph(tmp_path / "m.onnx", ports, nodes, {"large": np.float32(1000)})
    emulate(exact, tmp_path / "low.onnx", PrecisionJob("fp16", "onnx", ports, None, None, tmp_path, 18, 9), frozenset())
    ranking = rank_nodes(exact, tmp_path / "low.onnx", [random_inputs(ports, 3)], LARGEST["fp16"], 60)
    assert (ranking.names[0], ranking.first) == ("subtract", 1)
