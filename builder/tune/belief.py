"""What is believed of every setting, from predictions and from all turns that were measured; pure.

A Gaussian model of scores (natural logarithms of an objective, higher is better). A prediction misses the truth by
parts that kin settings share. A turn's score is the setting's, and what the whole wave shares (the machine drifts),
what its round shares, what the setting's launch of the server shares, and noise. Fitting all at once compares what was
never measured together through everything that was measured beside both; a turn that a neighbour disturbed weighs
little, and so do the turns of a setting that is never twice the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from builder.tune.estimate import Estimate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.int_]

WAVES: Final = 0.04
"""Deviation of what the turns of a wave share. Like the other deviations here, of a logarithm: 0.04 is four percent."""
LAUNCH: Final = 0.03
"""Deviation of what the turns of one setting in one wave share: no two launches of a server are quite the same."""
ROUNDS: Final = 0.04
"""Deviation of what the turns of a round share."""
TURN: Final = 0.06
"""Usual deviation of one turn of a second or two, and what a setting's own turns are weighed against."""
USUAL_TURNS: Final = 3.0
"""The usual deviation weighs as much as so many turns of the setting's own."""
DISTURBED: Final = 2.0
"""Turns further off than so many deviations weigh less, the further the less."""
UNKNOWN: Final = 1.0
"""Deviation of what nothing is known of."""
Item = TypeVar("Item", bound=Hashable)
Kin = Callable[[Item], Sequence[tuple[Hashable, float]]]
"""The groups that an item is in, and the deviation of what the members of such a group share."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[Item]):
    """One measured turn of an item; `error` is the standard error of its score as the turn itself shows it."""

    item: Item
    wave: int
    round: int
    score: float
    error: float


@dataclass(frozen=True, slots=True)
class Belief(Generic[Item]):
    """Means and covariances of the items' true scores."""

    places: Mapping[Item, int]
    means: Floats
    covariances: Floats
    waves: Mapping[Item, int]

    def ahead(self, item: Item, other: Item) -> Estimate:
        """How far an item is ahead of another."""
        one, two = self.places[item], self.places[other]
        own, theirs, common = (float(self.covariances[pair]) for pair in ((one, one), (two, two), (one, two)))
        error = math.sqrt(max(0.0, own + theirs - 2 * common))
        return Estimate(float(self.means[one] - self.means[two]), error, self.waves.get(item, 0))

    def after(self, item: Item) -> Belief[Item]:
        """How sure it will be once the item is measured too; the means stay."""
        import numpy as np

        place = self.places[item]
        column = self.covariances[place]
        noise = WAVES**2 + LAUNCH**2 + TURN**2 / USUAL_TURNS
        return Belief(
            self.places, self.means, self.covariances - np.outer(column, column) / (column[place] + noise), self.waves
        )


def believe(predicted: Mapping[Item, float], kin: Kin[Item], turns: Sequence[Turn[Item]]) -> Belief[Item]:
    """Of every item that is predicted; turns of others are left out."""
    import numpy as np

    places = {item: place for place, item in enumerate(predicted)}
    turns = [turn for turn in turns if turn.item in places]
    prior = np.array([predicted[item] for item in places])
    covariances = _prior([kin(item) for item in places])
    # In the order of the turns, not a set's: what is told apart by nothing else must not change from run to run.
    waves = {
        item: len({turn.wave for turn in turns if turn.item == item}) for item in dict.fromkeys(t.item for t in turns)
    }
    if not turns:
        return Belief(places, prior, covariances, waves)
    of = np.array([places[turn.item] for turn in turns])
    wave = _groups([turn.wave for turn in turns])
    rounds = _groups([(turn.wave, turn.round) for turn in turns])
    shared = covariances[np.ix_(of, of)] + WAVES**2 * _same(wave) + ROUNDS**2 * _same(rounds)
    shared += LAUNCH**2 * _same(_groups([(turn.wave, turn.item) for turn in turns]))
    scores = np.array([turn.score for turn in turns])
    least = np.array([turn.error for turn in turns]) ** 2
    shared += np.diag(np.maximum(least, _noise(scores, of, wave, rounds)))
    off, across = scores - prior[of], covariances[:, of]
    return Belief(
        places,
        prior + across @ np.linalg.solve(shared, off),
        covariances - across @ np.linalg.solve(shared, across.T),
        waves,
    )


def compare(turns: Sequence[Turn[Item]]) -> Belief[Item]:
    """Of items that nothing was predicted of, from their turns alone."""
    middle = sum(turn.score for turn in turns) / max(1, len(turns))
    return believe({turn.item: middle for turn in turns}, lambda item: [(item, UNKNOWN)], turns)


def _noise(scores: Floats, of: Numbers, wave: Numbers, rounds: Numbers) -> Floats:
    """Variances of the turns: of the item's own scatter, and more where one stands apart from its others.

    What counts is the distance from the median of the item's turns in the wave, less what the whole round was off.
    """
    import numpy as np

    apart = scores.copy()
    for group in {(item, number) for item, number in zip(of, wave, strict=True)}:
        mine = (of == group[0]) & (wave == group[1])
        apart[mine] -= np.median(scores[mine])
    for number in set(rounds):
        there = rounds == number
        if np.count_nonzero(there) > 2:  # noqa: PLR2004 - of two nobody knows which one was off
            apart[there] -= np.median(apart[there])
    within = np.minimum(apart**2, (DISTURBED * max(TURN, 1.5 * float(np.median(np.abs(apart))))) ** 2)
    own = (USUAL_TURNS * TURN**2 + np.bincount(of, within)) / (USUAL_TURNS + np.bincount(of))
    variances: Floats = own[of]
    return variances * np.maximum(1.0, apart**2 / (DISTURBED**2 * variances))


def _prior(groups: Sequence[Sequence[tuple[Hashable, float]]]) -> Floats:
    """Items share as much variance as the groups have that both are in."""
    import numpy as np

    found = np.zeros((len(groups), len(groups)))
    for level in zip(*groups, strict=True):
        deviation = np.array([deviation for _, deviation in level])
        found += np.outer(deviation, deviation) * _same(_groups([key for key, _ in level]))
    return found


def _groups(keys: Sequence[Hashable]) -> Numbers:
    """Equal keys have equal numbers."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _same(numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Which pairs are equal."""
    found: npt.NDArray[np.bool_] = numbers[:, None] == numbers[None, :]
    return found
