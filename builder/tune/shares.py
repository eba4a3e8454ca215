"""Several models on one machine: each was tuned as if it were alone; which settings go together is measured again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from builder.cache import Cache
from builder.errors import ServeError
from builder.machine import machine_facts
from builder.progress import Event, Progress
from builder.tune.belief import Turn, compare
from builder.tune.estimate import Estimate
from builder.tune.model import TuneOptions, with_chosen
from builder.tune.race import BETWEEN_S, LEAST_ROUNDS, OVERHEAD_S, ROUNDS, Race, missed_terms
from builder.tune.serving import Measured, Slot, Variant, measure, merged, served, there_and_back
from builder.tune.settings import describe
from builder.tuning_records import Setting, TunedModel

TURN_S: Final = 2.0
LEAST_S: Final = 0.5
"""Of a turn: shorter ones tell nothing apart."""
SHARE: Final = 0.15
"""Of the time of all models, what is left for measuring them together."""
ALONE_S: Final = 15.0
"""One more setting alone, beside what it is compared with."""
ENOUGH: Final = math.log(1.015)
"""A combination that is better by less is not taken in place of what is best alone."""

Found = Sequence[tuple[TunedModel, Race]]


@dataclass(frozen=True, slots=True)
class Combination:
    """One setting for each model, by their places among the variants that are served."""

    name: str
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A combination that was measured: over the first one, and the term of the SLO that it missed."""

    ratio: Estimate
    missed: str = ""


def share_out(
    found: Found, options: TuneOptions, cache: Cache, progress: Progress, deadline: float
) -> list[TunedModel]:
    """The models, each with the setting that serves all of them best when all are called at once.

    Best is the geometric mean: twice as fast for one model weighs as much as for another; of combinations that hold the
    SLO, where some do. `deadline` is a moment of the monotonic clock.
    """
    variants, combinations = _combinations(found)
    alone = [model for model, _ in found]
    if len(combinations) < 2:  # noqa: PLR2004 - nothing to choose from
        return alone
    label = f"shares of {', '.join(model.name for model in alone)}"
    progress(Event("start", label))
    begun = time.monotonic()
    try:
        left_s = deadline - time.monotonic() - OVERHEAD_S
        turns = turns_in(left_s, _measuring_alone_s(found, variants), len(combinations))
        tried = _measure(variants, combinations, options, cache, turns)
    except ServeError as error:
        progress(Event("failed", label, error.message.splitlines()[0]))
        return [
            _noted(model, f"the models were not measured together: {error.message.splitlines()[0]}") for model in alone
        ]
    best = best_of(tried)
    ratio = math.exp(tried[best].ratio.log_ratio)
    said = f"called at once, {combinations[best].name} is "
    said += f"{ratio:.2f} times what is best alone" if best else "best too"
    if tried[best].missed:
        said += f", but no combination holds the SLO: {tried[best].missed}"
    progress(Event("done", label, said, time.monotonic() - begun))
    decided = [variants[place][1] for place in combinations[best].places]
    try:
        return [
            _chosen(model, race, setting, said, deadline) for (model, race), setting in zip(found, decided, strict=True)
        ]
    except ServeError as error:
        lost = f"{said}, but what is best alone stays: {error.message.splitlines()[0]}"
        return [_noted(model, lost) for model in alone]


def _measuring_alone_s(found: Found, variants: Sequence[Variant]) -> float:
    """What it takes to measure alone, for the figures, those that may be chosen and were not measured yet."""
    races = {race.tuned.name: race for _, race in found}
    return ALONE_S * sum(setting not in races[tuned.name].points for tuned, setting in variants)


def turns_in(left_s: float, reserved_s: float, combinations: int) -> tuple[int, float]:
    """Rounds and the seconds of a turn, so that what is reserved stays; where that is too much, the shortest turns.

    Raises:
        ServeError: not even those fit into what is left.
    """
    for rounds in (ROUNDS, LEAST_ROUNDS):
        seconds = (left_s - reserved_s) / (rounds * combinations) - BETWEEN_S
        if seconds >= LEAST_S:
            return rounds, min(TURN_S, seconds)
    if left_s < LEAST_ROUNDS * combinations * (LEAST_S + BETWEEN_S):
        raise ServeError("no time was left; a larger --budget has some")
    return LEAST_ROUNDS, LEAST_S


def _combinations(found: Found) -> tuple[list[Variant], list[Combination]]:
    """What is best alone for every model, what is best in its share of the cores, and each model alone unhindered."""
    cores = max(1, int(machine_facts()["cores"]) // len(found))
    own = [(race.tuned, model.chosen) for model, race in found]
    small = [(race.tuned, _within(race, model.chosen, cores)) for model, race in found]
    variants = [*own, *small]
    count = len(own)
    every = [Combination("what is best alone", tuple(range(count)))]
    every += [Combination("each in its share of the cores", tuple(range(count, 2 * count)))]
    for place, (model, _) in enumerate(found):
        places = tuple(at if at == place else count + at for at in range(count))
        every.append(Combination(f"{model.name} unhindered and the others in their shares", places))
    seen: dict[tuple[Setting, ...], Combination] = {}
    for combination in every:
        seen.setdefault(tuple(variants[place][1] for place in combination.places), combination)
    return variants, list(seen.values())


def _within(race: Race, chosen: Setting, cores: int) -> Setting:
    """The best setting that keeps to so many cores; the chosen one where none does."""
    search = race.search
    fitting = [
        setting
        for setting in search.predicted
        if setting not in search.refused
        and setting.threads is not None
        and setting.instances * setting.threads <= cores
    ]
    measured = [setting for setting in fitting if setting in search.belief.waves]
    return max(measured or fitting, key=lambda setting: search.estimate(setting).log_ratio, default=chosen)


def best_of(tried: Sequence[Tried]) -> int:
    """The place of the best one that holds the SLO, where one does; the first one unless it is clearly beaten."""
    holding = [place for place, one in enumerate(tried) if not one.missed] or list(range(len(tried)))
    best = max(holding, key=lambda place: tried[place].ratio.log_ratio)
    return 0 if 0 in holding and tried[best].ratio.log_ratio < ENOUGH else best


def _measure(
    variants: Sequence[Variant],
    combinations: Sequence[Combination],
    options: TuneOptions,
    cache: Cache,
    turns: tuple[int, float],
) -> list[Tried]:
    """Each combination, in turns with the first one; `turns` are the rounds and the seconds of one.

    Raises:
        ServeError: the first one cannot be served.
    """
    wanted, (rounds, seconds) = options.wanted, turns
    order = there_and_back(range(len(combinations)), rounds)
    users = max(wanted.users, len(combinations[0].places))
    slots = [Slot(combinations[place].places, users, seconds) for _, place in order]
    with served(variants, cache) as (endpoint, names):
        taken = measure(endpoint, names, variants, slots, wanted.protocol)
    right = [
        (place, number, measured)
        for (number, place), measured in zip(order, taken, strict=True)
        if measured is not None and not measured.wrong and all(measured.speeds)
    ]
    belief = compare([Turn(place, 0, number, _score(measured), 0.0) for place, number, measured in right])
    if 0 not in belief.places:
        raise ServeError("together, the settings that are best alone answered nothing")

    def tried(place: int) -> Tried:
        points = [measured.point for own, _, measured in right if own == place]
        if not points:
            return Tried(Estimate(-math.inf, 0.0, 0))
        return Tried(belief.ahead(place, 0), missed_terms(wanted, merged(points)))

    return [tried(place) for place in range(len(combinations))]


def _score(measured: Measured) -> float:
    """The logarithm of the models' geometric mean."""
    return sum(math.log(speed) for speed in measured.speeds) / len(measured.speeds)


def _chosen(model: TunedModel, race: Race, setting: Setting, said: str, deadline: float) -> TunedModel:
    """With the setting of its share, and what that reaches alone."""
    if setting == model.chosen:
        return replace(model, together=said)
    changed = with_chosen(model, race, setting, deadline)
    # As it is known now: the setting was measured beside it once more.
    alone = race.search.best()
    return replace(changed, together=said if alone == setting else f"{said}; alone {describe(alone)} is best")


def _noted(model: TunedModel, text: str) -> TunedModel:
    return replace(model, notes=(*model.notes, text))
