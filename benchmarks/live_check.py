"""What the live check adds to the build of a small model: a server started, asked and stopped."""

from __future__ import annotations

import itertools

from benchmarks.figure import Figure
from benchmarks.measuring import Timing, build_repo, in_turns, median_cpu_s, median_s, run_command, scratch_folder
from benchmarks.small_model import save_small_model

LIMIT_S = 8.0


def run(*, quick: bool) -> list[Figure]:
    """Cold builds with and without it in turns, each with a cache and an output of its own."""
    repeats = 1 if quick else 5
    numbers = itertools.count()
    with scratch_folder() as folder:
        save_small_model(folder / "small.onnx")

        def build(check: str) -> Timing:
            place = folder / str(next(numbers))
            return run_command(
                build_repo("build", folder / "small.onnx", "-o", place / "repository", "--check", check),
                cache=place / "cache",
            )

        offline, live = in_turns(repeats, lambda: build("offline"), lambda: build("live"))
    added = median_s(live) - median_s(offline)
    details = (
        f"--check live {median_s(live):.2f} s, --check offline {median_s(offline):.2f} s (medians of {repeats})",
        f"CPU time alone: {median_cpu_s(live):.2f} s and {median_cpu_s(offline):.2f} s, the server's included",
    )
    what = "live check added to a build of one small model"
    return [Figure("live_check", what, added, LIMIT_S, "s", "at most", details)]
