"""Which request comes next: models, and sizes of them, by weight."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from payloads import PreparedRequest

Turn = tuple[str, list[Any], PreparedRequest]


@dataclass(frozen=True)
class Part:
    """A model, the rows of its requests (0: as the samples have them), and its weight in the mix."""

    model: str
    rows: int
    weight: float

    @property
    def key(self) -> str:
        return f"{self.model}@{self.rows}"


def parse_part(text: str) -> Part:
    """`NAME`, `NAME=WEIGHT`, `NAME@ROWS=WEIGHT`.

    Raises:
        ValueError: a number is none, or not above zero.
    """
    left, equals, weight = text.partition("=")
    name, at, rows = left.partition("@")
    try:
        part = Part(name, int(rows) if at else 0, float(weight) if equals else 1.0)
    except ValueError as error:
        raise ValueError(f"{text!r} is no part of a mix; write NAME, NAME=3 or NAME@ROWS=3") from error
    if not name or part.weight <= 0 or part.rows < 0 or (at and not part.rows):
        raise ValueError(f"{text!r} is no part of a mix; rows and weights must be above zero")
    return part


def given(words: Sequence[str]) -> list[str]:
    """Of a word that may come several times; one that does not come is an empty text, as on Locust's page.

    The default is that text too: of an empty list Locust's page would make numbers.
    """
    return [word for word in words if word]


def woven(weights: Sequence[float]) -> Iterator[int]:
    """Places by weight, as evenly spread as can be: (2, 1) gives 0 1 0 again and again."""
    credit = [0.0] * len(weights)
    total = sum(weights)
    while True:
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        chosen = max(range(len(credit)), key=credit.__getitem__)
        credit[chosen] -= total
        yield chosen


class Turns:
    """One user's requests, in the order of the mix; a model with states goes through its sequences."""

    def __init__(self, parts: Sequence[Part], prepared: Mapping[str, Sequence[Turn]], number: int) -> None:
        self.rings = [itertools.cycle(prepared[part.key]) for part in parts]
        order = woven([part.weight for part in parts])
        # Users begin at different places, else all of them would ask for the same model at once.
        self.order = itertools.islice(order, number % (4 * len(parts)), None)
        self.of_model = {part.model: ring for part, ring in zip(parts, self.rings, strict=True)}

    def next(self, model: str) -> Turn:
        """The next of this model; of the mix where the name is empty."""
        ring = self.of_model.get(model) if model else None
        return next(self.rings[next(self.order)] if ring is None else ring)
