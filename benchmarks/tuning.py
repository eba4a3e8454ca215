"""What the benchmarks of `tune` share: a search in a cache of its own, and settings measured side by side."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from builder.cache import Cache, open_cache
from builder.spec_file import load_spec
from builder.triton_client import Protocol
from builder.tune import TuneOptions, build_targets
from builder.tune.belief import Turn, compare
from builder.tune.estimate import sample_of
from builder.tune.model import prepare_race, tune_model
from builder.tune.race import Race
from builder.tune.servable import servable_targets
from builder.tune.serving import Slot, measure, served, there_and_back
from builder.tune.settings import describe
from builder.tuning_records import LoadPoint, Setting, TunedModel

LOOSE = {"max_relative_error": 10.0, "min_cosine": -1.0, "search_budget_s": 0}
"""Gates that pass everything: random weights have no accuracy to lose, only speed to show."""
USERS = 8


def say(text: str) -> None:
    """What is going on, for who waits."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One model whose targets are built in a cache of its own."""

    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        os.environ["BUILD_REPO_CACHE"] = str(folder / "cache")
        (folder / "models.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")
        self.spec = load_spec(folder / "models.yaml")
        self.cache = Cache((folder / "cache").resolve())
        open_cache(self.cache)
        states, findings = build_targets(self.spec, TuneOptions(), self.cache, lambda _: None)
        self.state = states[0]
        self.targets, _ = servable_targets(self.state, self.spec.triton)
        for finding in findings:
            if finding.severity != "info":
                say(f"{finding.target}: {finding.message[:200]}")
        say(f"{model['name']}: {', '.join(str(target.target) for target in self.targets)} can be served")

    def search(self, budget_s: float = 300.0, protocol: Protocol = "grpc") -> TunedModel:
        """`tune` from the start: what an earlier search measured is forgotten."""
        shutil.rmtree(self.cache.root / "tune", ignore_errors=True)
        options = TuneOptions(budget_s=budget_s, protocol=protocol)
        found, _ = tune_model(
            self.state, self.targets, self.spec.triton, options, self.cache, lambda _: None, lambda _: None
        )
        say(f"tune: {describe(found.chosen)}, {found.measurements} measurements, {found.seconds:.0f} s")
        return found

    def race(self) -> Race:
        """The space, without a search."""
        return prepare_race(self.state, self.targets, self.spec.triton, TuneOptions(), self.cache, lambda _: None)


def side_by_side(
    race: Race, settings: Sequence[Setting], *, rounds: int, seconds: float, launches: int = 1
) -> tuple[dict[Setting, float], dict[Setting, LoadPoint]]:
    """Logarithms over the reference's throughput, in turns with it, there and back; and the last load of each.

    Where two settings are to be told apart several launches are needed: a server is never twice quite as fast.
    """
    turns: list[Turn[Setting]] = []
    points: dict[Setting, LoadPoint] = {}
    for launch in range(launches):
        own, last = _launched(race, settings, launch, rounds, seconds)
        turns += own
        points |= last
        say(f"launch {launch + 1} of {launches}: {_means(own)}")
    found = _over_reference(race, turns)
    seen = {setting: len({turn.wave for turn in turns if turn.item == setting}) for setting in found}
    # What answered wrongly in one of the launches cannot be chosen.
    return {setting: value for setting, value in found.items() if seen[setting] == launches}, points


def sweep(race: Race, settings: Sequence[Setting], *, seconds: float, group: int = 12) -> dict[Setting, float]:
    """Every setting, there and back."""
    turns: list[Turn[Setting]] = []
    for start in range(0, len(settings), group):
        own, _ = _launched(race, settings[start : start + group], start, 2, seconds)
        turns += own
        say(f"sweep {min(start + group, len(settings))} of {len(settings)}: {_means(own)}")
    return _over_reference(race, turns)


def _launched(
    race: Race, settings: Sequence[Setting], wave: int, rounds: int, seconds: float
) -> tuple[list[Turn[Setting]], dict[Setting, LoadPoint]]:
    """Turns of one launch of the server, the reference among them; none of a setting whose answers were wrong."""
    group = list(dict.fromkeys([race.search.reference, *settings]))
    order = there_and_back(range(len(group)), rounds)
    variants = [(race.tuned, setting) for setting in group]
    with served(variants, race.cache) as (endpoint, names):
        taken = measure(endpoint, names, variants, [Slot((place,), USERS, seconds) for _, place in order], "grpc")
    turns, points = [], {}
    wrong = {place for (_, place), one in zip(order, taken, strict=True) if one is None or one.wrong}
    for (number, place), one in zip(order, taken, strict=True):
        if one is not None and place not in wrong:
            sample = sample_of(one.windows)
            turns.append(Turn(group[place], wave, number, sample.log_value, sample.error))
            points[group[place]] = one.point
    return turns, points


def _over_reference(race: Race, turns: Sequence[Turn[Setting]]) -> dict[Setting, float]:
    belief = compare(turns)
    return {setting: belief.ahead(setting, race.search.reference).log_ratio for setting in belief.places}


def _means(turns: Sequence[Turn[Setting]]) -> str:
    scores: dict[Setting, list[float]] = {}
    for turn in turns:
        scores.setdefault(turn.item, []).append(turn.score)
    return ", ".join(f"{math.exp(statistics.mean(mine)):.0f}" for mine in scores.values()) + " rows/s"


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that burns one core for a second, every four."""
    import subprocess

    code = "import time\nwhile True:\n e=time.time()+1\n while time.time()<e: pass\n time.sleep(3)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ratio(log_ratio: float) -> float:
    """Of a logarithm."""
    return math.exp(log_ratio)
