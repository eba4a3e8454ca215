"""What long work tells while it runs; the command line draws bars or prints lines from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    """Something began, ended or is worth a line. `label` names it (`classifier openvino:fp16 convert`)."""

    kind: Literal["start", "done", "cached", "failed", "note"]
    label: str
    detail: str = ""
    seconds: float | None = None


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """For callers that want no progress."""
