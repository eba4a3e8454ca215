"""Which settings to serve next, and when to stop: pure decisions from predictions and what was measured.

Scores are natural logarithms of the objective, higher is better, so differences are ratios.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from builder.tune.belief import UNKNOWN, Belief, Turn, believe, compare
from builder.tune.estimate import CONFIDENT, Estimate
from builder.tuning_records import Setting

KINSHIP: Final[tuple[tuple[tuple[str, ...], float], ...]] = (
    ((), UNKNOWN),
    (("target",), 0.13),
    (("threads", "hint"), 0.08),
    (("instances", "threads", "hint"), 0.04),
    (("target", "instances"), 0.05),
    (("target", "instances", "threads", "hint"), 0.05),
    (("target", "instances", "threads", "hint", "dynamic"), 0.04),
)
"""By so much (deviation of a logarithm) predictions miss alike where settings have these fields in common.

In a sweep of 156 settings: 0.08 by target, 0.04 by threads, 0.05 by both with the instances, 0.05 by merging.
"""
ALONE: Final = 0.04
"""And by so much each differs besides."""
ENOUGH: Final = math.log(1.01)
"""A setting that may be better by less is not worth a measurement."""
CLOSE: Final = math.log(1.03)
"""Settings nearer to the best than this are told apart by measuring again."""
EQUAL: Final = math.log(1.01)
"""Of settings nearer than this the simplest one is chosen."""
SURE: Final = 0.015
"""Standard error of a difference that is known well enough."""
REPEATS: Final = 3


@dataclass(slots=True)
class Search:
    """`predicted` are scores; `behaviours` maps settings to what tells them apart under this load."""

    predicted: Mapping[Setting, float]
    behaviours: Mapping[Setting, Setting]
    reference: Setting
    turns: list[Turn[Setting]] = field(default_factory=list)
    refused: dict[Setting, str] = field(default_factory=dict)
    _for_good: set[Setting] = field(default_factory=set)
    _belief: Belief[Setting] | None = None
    _seen: Belief[Setting] | None = None

    def expect(self, predicted: Mapping[Setting, float]) -> None:
        """Better predictions."""
        self.predicted, self._belief = predicted, None

    def tell(self, turns: Sequence[Turn[Setting]]) -> None:
        """What was measured."""
        self.turns.extend(turns)
        self._belief = self._seen = None

    def refuse(self, setting: Setting, why: str, *, for_good: bool = False) -> None:
        """It cannot be chosen, as far as is known; `for_good`: whatever is measured later."""
        if setting not in self._for_good:
            self.refused[setting] = why
        if for_good:
            self._for_good.add(setting)

    def admit(self, setting: Setting) -> None:
        """It can be chosen after all, where nothing refused it for good."""
        if setting not in self._for_good:
            self.refused.pop(setting, None)

    @property
    def belief(self) -> Belief[Setting]:
        """Of every setting, from all that is known."""
        if self._belief is None:
            self._belief = believe(self.predicted, self._groups, self.turns)
        return self._belief

    @property
    def seen(self) -> Belief[Setting]:
        """Of what was measured, from measurements alone: what was seen is not explained away."""
        if self._seen is None:
            self._seen = compare(self.turns)
        return self._seen

    def _groups(self, setting: Setting) -> list[tuple[Hashable, float]]:
        groups: list[tuple[Hashable, float]] = [(_kin(setting, fields), share) for fields, share in KINSHIP]
        return [*groups, (self.behaviours[setting], ALONE)]

    def estimate(self, setting: Setting) -> Estimate:
        """Over the reference: of one that was measured; of another what is believed."""
        pair = {setting, self.reference}
        return (self.seen if pair <= self.seen.places.keys() else self.belief).ahead(setting, self.reference)

    @property
    def measured(self) -> tuple[Setting, ...]:
        """Settings that were served and may be chosen; the reference is one unless it was refused."""
        tried = dict.fromkeys([self.reference, *self.belief.waves])
        return tuple(setting for setting in tried if setting not in self.refused)

    def best(self) -> Setting:
        """The best by its mean; of those that are as good, the simplest. The reference where all were refused."""
        tried = self.measured
        if not tried:
            return self.reference
        top = self.estimate(self.top).log_ratio
        return min((item for item in tried if self.estimate(item).log_ratio >= top - EQUAL), key=self._effort)

    @property
    def top(self) -> Setting:
        """The best by its mean alone; the reference where all were refused."""
        return max(self.measured, key=lambda setting: self.estimate(setting).log_ratio, default=self.reference)

    def _effort(self, setting: Setting) -> tuple[object, ...]:
        """Fewer processes and threads, less waiting, larger batches for clients; then the better one."""
        delay, sizes = setting.max_queue_delay_us, len(setting.preferred)
        work = setting.instances * (setting.threads or 1)
        return setting.instances, work, delay, sizes, setting.hint or "", -self.estimate(setting).log_ratio

    def untried(self) -> list[Setting]:
        """Settings that nothing like them was measured of: of each kind the simplest."""
        seen = {self.behaviours[item] for item in (*self.belief.waves, *self.refused, self.reference)}
        found: dict[Setting, Setting] = {}
        for setting in self.predicted:
            kind = self.behaviours[setting]
            if kind not in seen and (kind not in found or self._effort(setting) < self._effort(found[kind])):
                found[kind] = setting
        return list(found.values())

    def wave(self, size: int) -> list[Setting]:
        """The next ones to serve; empty when none can beat the best by more than noise.

        Each is the most hopeful once those before it are measured too, so a wave does not ask the same thing twice.
        """
        belief, left, chosen = self.belief, self.hopeful(), list[Setting]()
        while len(chosen) < size and left:
            hopes = self._hopes(belief, left)
            chosen.append(max(left, key=hopes.__getitem__))
            belief = belief.after(chosen[-1])
            hopes = self._hopes(belief, [item for item in left if item != chosen[-1]])
            left = [item for item, hope in hopes.items() if hope > ENOUGH]
        return chosen

    def hopeful(self) -> list[Setting]:
        """Untried settings that may be better than the best by more than noise."""
        return [setting for setting, hope in self._hopes(self.belief, self.untried()).items() if hope > ENOUGH]

    def _hopes(self, belief: Belief[Setting], settings: Sequence[Setting]) -> dict[Setting, float]:
        """What each may be better by than the best so far; of all it is, where none may be chosen."""
        if not self.measured:
            return {item: UNKNOWN + belief.ahead(item, self.reference).log_ratio for item in settings}
        top = self.top
        ahead = {item: belief.ahead(item, top) for item in settings}
        return {item: one.log_ratio + CONFIDENT * one.error for item, one in ahead.items()}

    def finalists(self, size: int) -> list[Setting]:
        """Measured settings that may be the best and are not yet told apart from it well enough."""
        tried = [setting for setting in self.measured if setting != self.reference]
        if not tried:
            return []
        top = max(tried, key=lambda setting: self.estimate(setting).log_ratio)
        behind = {setting: self.seen.ahead(top, setting) for setting in tried}
        rivals = [item for item in tried if behind[item].log_ratio < max(CLOSE, CONFIDENT * behind[item].error)]
        unsure = max(behind[item].error for item in rivals) > SURE
        # One measurement may have been lucky, even where nothing came near it.
        least = REPEATS if unsure else 2
        open_ones = [item for item in rivals if self.belief.waves[item] < least]
        return sorted(open_ones, key=lambda item: behind[item].log_ratio)[:size]


def _kin(setting: Setting, fields: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(setting, name) for name in fields)


def why_stopped(left: Sequence[Setting], *, out_of_time: bool, out_of_measurements: bool) -> str:
    """One sentence for people."""
    if out_of_time:
        return (
            f"the time was over with {len(left)} kinds of settings left that might be better; tune with a larger "
            "--budget goes on from here"
        )
    if out_of_measurements:
        return (
            f"the measurements were spent with {len(left)} kinds of settings left that might be better; the same tune "
            "goes on from here"
        )
    return "no setting that was not tried can be better by more than noise"
