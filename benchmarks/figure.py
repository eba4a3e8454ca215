"""What a benchmark hands back: a number, its limit, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `sense` says on which side of `limit` the value must lie; `details` explain it."""

    name: str
    what: str
    value: float
    limit: float
    unit: str
    sense: Literal["at most", "at least"]
    details: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


def lines(figure: Figure) -> Iterator[str]:
    """The verdict on one line, the details below it."""
    verdict = "reached" if figure.reached else "MISSED "
    value, limit = _number(figure.value, figure.unit), _number(figure.limit, figure.unit)
    yield f"{verdict}  {value:>10}  ({figure.sense} {limit})  {figure.what}"
    for detail in figure.details:
        yield f"             {detail}"


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip()
