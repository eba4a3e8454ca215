"""What was measured, in the cache: what an interrupted search goes on from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache import Cache
from builder.records import canonical, read_record, write_record
from builder.tuning_records import LoadPoint, Setting


@dataclass(frozen=True, slots=True)
class Kept:
    """A setting in a wave: the scores of its turns with their rounds and standard errors, and its load.

    `wrong` is why it can never be chosen, where answers were wrong.
    """

    setting: Setting
    turns: tuple[tuple[int, float, float], ...]
    point: LoadPoint
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """What was measured beside each other."""

    settings: tuple[Kept, ...]


def read_wave(cache: Cache, identity: str, number: int) -> tuple[Kept, ...]:
    """Nothing where no such wave was measured."""
    file = _file(cache, identity, number)
    return read_record(Wave, file).settings if file.is_file() else ()


def write_wave(cache: Cache, identity: str, number: int, settings: Sequence[Kept]) -> None:
    """`identity` is what the measurements hold for."""
    file = _file(cache, identity, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, Wave(tuple(settings)))


def _file(cache: Cache, identity: str, number: int) -> Path:
    parts = {"of": identity, "wave": number}
    return cache.root / "tune" / f"{hashlib.sha256(canonical(parts)).hexdigest()[:32]}.json"
