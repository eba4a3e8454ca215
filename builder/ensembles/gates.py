"""What an ensemble's answers must reach: its own words, else what its members may lose.

Errors add up, and the next member may enlarge them: the loosest bound of the members is the default for floating
outputs. Integers and strings must be equal where every member computes in fp32. After one that does not, two classes
that are nearly as likely may change places, so a share of the elements may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from builder.compare import Gates
from builder.spec_wiring import EnsembleAccuracySpec

MISMATCHES: Final = 0.05
"""Share of an integer or string output that may differ after a member that does not compute in fp32."""
ROOM: Final = 1.5
"""A single row of few samples may differ, and requests of many clients ask for it more often than for others."""


def ensemble_gates(words: EnsembleAccuracySpec, members: Sequence[Gates], *, lossy: bool, rows: int) -> Gates:
    """The gates; `members` are those of the members' served targets, `rows` how many rows the reference has."""
    gates = Gates()
    share = round(ROOM * max(MISMATCHES, 1 / max(1, rows)), 4) if lossy else 0.0
    gates = replace(
        gates,
        max_relative_error=max((gates.max_relative_error, *(item.max_relative_error for item in members))),
        min_cosine=min((gates.min_cosine, *(item.min_cosine for item in members))),
        max_mismatch_share=max((min(1.0, share), *(item.max_mismatch_share for item in members))),
    )
    given = words.model_dump(exclude_none=True)
    return replace(gates, **given)
