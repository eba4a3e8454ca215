"""How much longer `build-repo --help` takes than an interpreter that does nothing."""

from __future__ import annotations

from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, build_repo, in_turns, median_cpu_s, median_s, run_command

LIMIT_S = 0.2


def run(*, quick: bool) -> list[Figure]:
    """Both commands in turns."""
    repeats = 5 if quick else 25
    bare, shown = in_turns(
        repeats, lambda: run_command([PYTHON, "-c", "pass"]), lambda: run_command(build_repo("--help"))
    )
    details = (
        f"build-repo --help {median_s(shown):.3f} s, python -c pass {median_s(bare):.3f} s (medians of {repeats})",
        f"CPU time alone: {median_cpu_s(shown):.3f} s and {median_cpu_s(bare):.3f} s",
    )
    over = median_s(shown) - median_s(bare)
    return [Figure("help_time", "`build-repo --help` over `python -c pass`", over, LIMIT_S, "s", "at most", details)]
