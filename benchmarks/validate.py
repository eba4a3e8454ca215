"""`build-repo validate` over a thousand small models, its memory against a hundred, and over one configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.measuring import Timing, build_repo, in_turns, median_s, run_command, scratch_folder
from benchmarks.small_model import save_small_model

LIMIT_S, ONE_LIMIT_S, GROWTH_LIMIT = 10.0, 0.5, 1.2
MANY, FEW = 1000, 100
CONFIG = """backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 8 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""


def run(*, quick: bool) -> list[Figure]:
    """Repositories of the same model; the smaller ones in turns with the large one."""
    repeats = 1 if quick else 5
    with scratch_folder() as folder:
        many, few, one = (_repository(folder / str(count), count) for count in (MANY, FEW, 1))
        large, small = in_turns(repeats, lambda: _validate(many), lambda: _validate(few))
        (single,) = in_turns(repeats * 3, lambda: _validate(one))
    growth = _peak(large) / _peak(small)
    times = f"{MANY} models {median_s(large):.2f} s, {FEW} models {median_s(small):.2f} s, one {median_s(single):.2f} s"
    details = (
        f"medians of {repeats}: {times}",
        f"largest resident memory: {_peak(large) / 2**20:.0f} MiB and {_peak(small) / 2**20:.0f} MiB",
    )
    return [
        Figure("validate", f"`validate` of {MANY} ONNX models", median_s(large), LIMIT_S, "s", "at most", details),
        Figure("validate_memory", f"its memory over that of {FEW} models", growth, GROWTH_LIMIT, "", "at most"),
        Figure("validate_one", "`validate` of one model", median_s(single), ONE_LIMIT_S, "s", "at most"),
    ]


def _validate(repository: Path) -> Timing:
    return run_command(build_repo("validate", repository), memory=True)


def _peak(timings: list[Timing]) -> int:
    return max(timing.peaks.get("parent", 0) for timing in timings)


def _repository(folder: Path, count: int) -> Path:
    for index in range(count):
        version = folder / f"model_{index}" / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
        if index == 0:
            save_small_model(version / "model.onnx")
        else:
            shutil.copyfile(folder / "model_0" / "1" / "model.onnx", version / "model.onnx")
    return folder
