"""Which settings to serve next, and when to stop: pure decisions from predictions and what was measured.

Scores are natural logarithms of the objective, higher is better, so differences are ratios. Predictions are corrected
by what was measured of the most similar settings; what nothing similar was measured of may be better than predicted by
as much as predictions usually miss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from builder.tune.estimate import CONFIDENT, Estimate, Ratio, combine
from builder.tuning_records import Setting

KINSHIP: Final[tuple[tuple[tuple[str, ...], float], ...]] = (
    (("target", "instances", "threads", "hint", "dynamic"), 0.04),
    (("target", "instances", "threads", "hint"), 0.08),
    (("target", "instances"), 0.12),
    (("target",), 0.15),
    ((), 0.30),
)
"""Settings with these fields in common miss their predictions alike, but for so much (deviation of a logarithm)."""
ENOUGH: Final = math.log(1.01)
"""A setting that may be better by less is not worth a measurement."""
CLOSE: Final = math.log(1.03)
"""Settings nearer to the best than this are told apart by measuring again."""
EQUAL: Final = math.log(1.015)
"""Of settings nearer than this the simplest one is chosen."""
SURE: Final = 0.01
"""Relative standard error at which a setting is measured well enough."""
REPEATS: Final = 3
ALIKE_IN_A_WAVE: Final = 2


@dataclass(slots=True)
class Search:
    """`predicted` are scores; `behaviours` maps settings to what tells them apart under this load."""

    predicted: Mapping[Setting, float]
    behaviours: Mapping[Setting, Setting]
    reference: Setting
    ratios: dict[Setting, list[Ratio]] = field(default_factory=dict)
    refused: dict[Setting, str] = field(default_factory=dict)

    def tell(self, setting: Setting, ratio: Ratio) -> None:
        """A measurement: its score less the reference's at that time."""
        self.ratios.setdefault(setting, []).append(ratio)

    def refuse(self, setting: Setting, why: str) -> None:
        """It can never be chosen."""
        self.refused[setting] = why

    def estimate(self, setting: Setting) -> Estimate:
        """Of a setting that was measured; the reference is what it is compared with."""
        found = self.ratios.get(setting, [])
        return combine(found) if found else Estimate(0.0, 0.0, 0)

    @property
    def measured(self) -> tuple[Setting, ...]:
        """Settings that were served and may be chosen; the reference is one unless it was refused."""
        tried = dict.fromkeys([self.reference, *self.ratios])
        return tuple(setting for setting in tried if setting not in self.refused)

    def best(self) -> Setting:
        """The best by its mean; of those that are as good, the simplest. The reference where all were refused."""
        tried = self.measured
        if not tried:
            return self.reference
        top = max(self.estimate(setting).log_ratio for setting in tried)
        return min((item for item in tried if self.estimate(item).log_ratio >= top - EQUAL), key=self._effort)

    def _effort(self, setting: Setting) -> tuple[object, ...]:
        """Fewer processes and threads, less waiting, larger batches for clients; then the better one."""
        delay, sizes = setting.max_queue_delay_us, len(setting.preferred)
        work = setting.instances * (setting.threads or 1)
        return setting.instances, work, delay, sizes, setting.hint or "", -self.estimate(setting).log_ratio

    def expected(self, setting: Setting) -> tuple[float, float]:
        """Score over the reference's, and its standard deviation, of a setting that was not measured."""
        ahead = self.predicted[setting] - self.predicted[self.reference]
        known = [(item, self._residual(item)) for item in self.measured]
        for fields, deviation in KINSHIP:
            alike = [residual for item, residual in known if _kin(item, fields) == _kin(setting, fields)]
            if alike:
                middle = sum(alike) / len(alike)
                spread = math.sqrt(sum((one - middle) ** 2 for one in alike) / len(alike))
                return ahead + middle, math.hypot(deviation, spread)
        return ahead, KINSHIP[-1][1]

    def _residual(self, setting: Setting) -> float:
        ahead = self.predicted[setting] - self.predicted[self.reference]
        return self.estimate(setting).log_ratio - ahead

    def _hope(self, setting: Setting) -> float:
        middle, deviation = self.expected(setting)
        return middle + deviation

    def untried(self) -> list[Setting]:
        """Settings that nothing like them was measured of, the most hopeful first."""
        seen = {self.behaviours[item] for item in (*self.ratios, *self.refused, self.reference)}
        found: dict[Setting, Setting] = {}
        for setting in self.predicted:
            kind = self.behaviours[setting]
            if kind not in seen and (kind not in found or self._effort(setting) < self._effort(found[kind])):
                found[kind] = setting
        return sorted(found.values(), key=self._hope, reverse=True)

    def wave(self, size: int) -> list[Setting]:
        """The next ones to serve; empty when none can beat the best by more than noise."""
        top = max((self.estimate(item).log_ratio for item in self.measured), default=-math.inf)
        hopeful = [setting for setting in self.untried() if self._hope(setting) > top + ENOUGH]
        chosen: list[Setting] = []
        if len(self.ratios) < size:
            chosen += {setting.target: setting for setting in reversed(hopeful)}.values()
        fields = KINSHIP[1][0]
        for setting in hopeful:
            alike = sum(_kin(other, fields) == _kin(setting, fields) for other in chosen)
            if setting not in chosen and alike < ALIKE_IN_A_WAVE:
                chosen.append(setting)
        return chosen[:size]

    def finalists(self, size: int) -> list[Setting]:
        """Measured settings that may be the best and are not yet told apart from it well enough."""
        tried = [setting for setting in self.measured if setting != self.reference]
        if not tried:
            return []
        top = max(tried, key=lambda setting: self.estimate(setting).log_ratio)
        best = self.estimate(top)
        rivals = [
            setting
            for setting in tried
            if best.log_ratio - self.estimate(setting).log_ratio
            < max(CLOSE, CONFIDENT * math.hypot(best.error, self.estimate(setting).error))
        ]
        # One measurement may have been lucky, even where nothing came near it.
        open_ones = [
            setting
            for setting in rivals
            if self.estimate(setting).count < 2  # noqa: PLR2004
            or (self.estimate(setting).error > SURE and self.estimate(setting).count < REPEATS)
        ]
        return sorted(open_ones, key=lambda setting: -self.estimate(setting).log_ratio)[:size]


def _kin(setting: Setting, fields: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(setting, name) for name in fields)


def why_stopped(left: Sequence[Setting], *, out_of_time: bool, out_of_measurements: bool) -> str:
    """One sentence for people."""
    if out_of_time:
        return f"the time was over with {len(left)} kinds of settings left that might be better"
    if out_of_measurements:
        return f"the measurements were spent with {len(left)} kinds of settings left that might be better"
    return "no setting that was not tried can be better by more than noise"
