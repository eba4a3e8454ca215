"""The fewest nodes to keep in fp32 so that a graph of lower precision meets its gates.

Nodes are ranked by the error that each one adds, those that leave the precision's range first; then, as far as the time
allows, by what keeping each one alone gives the answers: an error inside of the graph may fade or grow on its way out.
The kept set grows along that order until the gates are met, and shrinks until no node can be left out. Everything is
asked of `judge`, which runs a graph with some nodes kept; the same questions in the same order every time, until the
time is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.measurement import KeptNode
from builder.onnx_tools.reading import read_onnx
from builder.onnx_tools.values import run_exposed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


ALONE_SHARE: Final = 0.4
"""Of the time that is left, what asking for nodes one by one may take."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gates say to a graph: `excess` is the worst error over its gate, above 1 where one is missed."""

    passes: bool
    excess: float


@dataclass(frozen=True, slots=True)
class Node:
    """A node that can be kept: its ONNX name and operator."""

    name: str
    operator: str


@dataclass(frozen=True, slots=True)
class Found:
    """The best that was found, in the graph's order; `finished`: the time was enough to ask all there was to ask."""

    kept: tuple[KeptNode, ...]
    verdict: Verdict
    finished: bool


@dataclass(frozen=True, slots=True)
class Ranking:
    """Names of nodes, the likeliest first, and how many of them to try at first."""

    names: tuple[str, ...]
    first: int


Judge = Callable[[frozenset[str]], Verdict]


class _TimeIsOverError(Exception):
    """The next question would take longer than what is left."""


@dataclass(slots=True)
class _Search:
    """`answers` holds every set that was asked for; `always` is part of each."""

    judge: Judge
    always: frozenset[str]
    deadline: float
    answers: dict[frozenset[str], Verdict] = field(default_factory=dict)
    longest_s: float = 0.0

    def ask(self, nodes: Sequence[str] | frozenset[str]) -> Verdict:
        kept = self.always | frozenset(nodes)
        if kept not in self.answers:
            started = time.monotonic()
            if self.answers and started + self.longest_s > self.deadline:
                raise _TimeIsOverError
            self.answers[kept] = self.judge(kept)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
        return self.answers[kept]

    def best(self) -> frozenset[str]:
        """Of all sets asked for: one that passes, the smallest; else the one with the smallest error."""

        def rank(item: tuple[frozenset[str], Verdict]) -> tuple[bool, float, int]:
            kept, verdict = item
            return not verdict.passes, 0.0 if verdict.passes else verdict.excess, len(kept)

        return min(self.answers.items(), key=rank)[0]


def find_kept(
    nodes: Sequence[Node], rank: Callable[[], Ranking], judge: Judge, budget_s: float, always: frozenset[str]
) -> Found:
    """Search among `nodes` (in the graph's order); `always` are kept whatever the gates say.

    `rank` is only asked where something is to be searched. With a budget of 0 nothing is: the verdict is that of
    `always`.
    """
    search = _Search(judge, always, time.monotonic() + budget_s)
    finished = search.ask(()).passes
    if not finished and budget_s > 0:
        try:
            ranking = rank()
            ranked = [name for name in ranking.names if name not in always]
            kept = _grown(search, _by_gain(search, ranked), ranking.first)
            if kept is not None:
                _shrunk(search, kept)
            finished = True
        except _TimeIsOverError:
            pass
    best = search.best()
    kept_nodes = tuple(
        KeptNode(node.name, node.operator, _gain(search, best, node.name)) for node in nodes if node.name in best
    )
    return Found(kept_nodes, search.answers[best], finished)


def _by_gain(search: _Search, ranked: Sequence[str]) -> list[str]:
    """Those first that bring the answers nearest to the gates when they alone are kept; others keep their order.

    Where answers are NaN or infinite, no node alone may help, and the order stays.
    """
    without = search.ask(()).excess
    if not math.isfinite(without):
        return list(ranked)
    begun = time.monotonic()
    until = begun + ALONE_SHARE * (search.deadline - begun)
    gains: dict[str, float] = {}
    for name in ranked:
        if time.monotonic() + search.longest_s > until:
            break
        gains[name] = without - search.ask([name]).excess
    return sorted(ranked, key=lambda name: -gains.get(name, 0.0))


def _grown(search: _Search, ranked: Sequence[str], first: int) -> list[str] | None:
    """The shortest beginning of `ranked` that meets the gates (if longer ones do, too); None where not even all do."""
    if not ranked:
        return None
    failing, size = 0, max(1, min(first, len(ranked)))
    while not search.ask(ranked[:size]).passes:
        if size == len(ranked):
            return None
        failing, size = size, min(2 * size, len(ranked))
    while size - failing > 1:
        middle = (failing + size) // 2
        if search.ask(ranked[:middle]).passes:
            size = middle
        else:
            failing = middle
    return list(ranked[:size])


def _shrunk(search: _Search, kept: list[str]) -> None:
    """Leave out what is not needed, large parts first, until no single node can go."""
    part = max(1, len(kept) // 2)
    while True:
        before = len(kept)
        for end in range(len(kept), 0, -part):
            fewer = kept[: max(0, end - part)] + kept[end:]
            if search.ask(fewer).passes:
                kept = fewer
        if part > 1:
            part //= 2
        elif len(kept) == before:
            return


def _gain(search: _Search, kept: frozenset[str], name: str) -> float:
    """By how much the excess grows without the node; NaN where the time was over before that was asked."""
    if name in search.always:
        return math.inf
    without = search.answers.get(kept - {name})
    if without is None:
        return math.nan
    worse = without.excess - search.answers[kept].excess
    return worse if not math.isfinite(worse) else float(f"{worse:.3g}")


def nodes_of(path: Path) -> tuple[Node, ...]:
    """The nodes of the main graph that could be kept: all that have a name."""
    return tuple(Node(node.name, node.op_type) for node in read_onnx(path).graph.node if node.name)


def rank_nodes(exact: Path, low: Path, requests: Sequence[Arrays], largest: float, time_s: float) -> Ranking:
    """Rank the nodes of `exact` by what `low`, the same graph in a lower precision, makes of the same requests.

    First come the nodes that read or write a value beyond `largest`, in the graph's order, then the others by the
    error that each one adds to what it reads. One request is looked at however long it takes, the next ones in
    `time_s`.

    Raises:
        BuildError: one of the graphs does not run.
    """
    nodes = read_onnx(exact).graph.node
    written = {name for node in read_onnx(low).graph.node for name in node.output}
    names = [name for node in nodes for name in node.output if name and name in written]
    errors: dict[str, float] = {}
    peaks: dict[str, float] = {}
    deadline = time.monotonic() + time_s
    for request in requests:
        for name, array in request.items():
            peaks[name] = max(peaks.get(name, 0.0), _peak(array))
        pairs = zip(run_exposed(exact, request, names), run_exposed(low, request, names), strict=True)
        for (name, right), (_, wrong) in pairs:
            peaks[name] = max(peaks.get(name, 0.0), _peak(right))
            errors[name] = max(errors.get(name, 0.0), _error(right, wrong))
        if time.monotonic() > deadline:
            break
    beyond = {name for name, peak in peaks.items() if peak > largest}
    touching = [node.name for node in nodes if beyond & {*node.input, *node.output}]
    added = {node.name: _added(node, errors) for node in nodes if node.name not in set(touching)}
    return Ranking((*touching, *sorted(added, key=lambda name: -added[name])), len(touching) or 1)


def _added(node: Any, errors: Mapping[str, float]) -> float:  # noqa: ANN401 - onnx.NodeProto
    read = max((errors.get(name, 0.0) for name in node.input), default=0.0)
    made = max((errors.get(name, 0.0) for name in node.output), default=0.0)
    return made - read if math.isfinite(read) else 0.0


def _peak(value: Any) -> float:  # noqa: ANN401 - an array, or what else a node may give
    """Largest finite magnitude of a float array, else 0."""
    import numpy as np

    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return 0.0
    magnitudes = np.abs(value)
    return float(np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0))


def _error(right: Any, wrong: Any) -> float:  # noqa: ANN401
    """Length of the difference over the length of the right one; infinite where only the other is NaN or infinite."""
    import numpy as np

    if not isinstance(right, np.ndarray) or right.dtype.kind != "f" or not isinstance(wrong, np.ndarray):
        return 0.0
    if right.shape != wrong.shape or not np.array_equal(np.isfinite(right), np.isfinite(wrong)):
        return math.inf
    finite = np.isfinite(right)
    exact = np.where(finite, right, 0.0).astype(np.float64)
    length = float(np.linalg.norm(exact))
    difference = float(np.linalg.norm(np.where(finite, wrong, 0.0) - exact))
    return difference / length if length else (math.inf if difference else 0.0)
