"""ResNet-50 (100 MB of ONNX) to two backends with an empty cache: how long, and how much memory each process takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks import bare_session
from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, ROOT, Timing, build_repo, run_command, scratch_folder

LIMIT_S = 60.0
LIMIT_OVER_GB = 0.5
LARGEST_BATCH = 8
GB = 1e9


def run(*, quick: bool) -> list[Figure]:  # noqa: ARG001 - one build is the least
    """One build, and each library alone on the same file."""
    with scratch_folder() as folder:
        model = folder / "resnet50.onnx"
        run_command([PYTHON, "-m", "benchmarks.resnet", str(model)])
        size = model.stat().st_size / 1e6
        bare = {library: _bare_peak(library, model) for library in bare_session.LIBRARIES}
        targets = ("--targets", "onnxruntime:fp32,openvino:fp32", "--check", "offline")
        command = build_repo("build", model, "-o", folder / "repository", *targets)
        built = run_command(command, cache=folder / "cache", memory=True)
    what = f"cold build of ResNet-50 ({size:.0f} MB) to onnxruntime:fp32 and openvino:fp32, checked offline"
    details = (f"CPU time {built.cpu_s:.0f} s",)
    time_figure = Figure("cold_build", what, built.seconds, LIMIT_S, "s", "at most", details)
    return [time_figure, _memory_figure(built, bare)]


def _memory_figure(built: Timing, bare: dict[str, int]) -> Figure:
    over = {label: peak - bare[_library(label)] for label, peak in built.peaks.items()}
    alone = ", ".join(f"{library} {peak / GB:.2f} GB" for library, peak in bare.items())
    details = [f"a bare session with {LARGEST_BATCH} rows: {alone}"]
    for label, peak in sorted(built.peaks.items()):
        details.append(f"{label}: {peak / GB:.2f} GB, {over[label] / GB:+.2f} GB over bare {_library(label)}")
    what = "largest memory of one of its processes over a bare session of that library"
    return Figure("cold_build", what, max(over.values()) / GB, LIMIT_OVER_GB, "GB", "at most", tuple(details))


def _library(label: str) -> str:
    """The one in its name; the export runs the model in onnxruntime for its reference."""
    return next((library for library in bare_session.LIBRARIES if library in label), "onnxruntime")


def _bare_peak(library: str, model: Path) -> int:
    command = [PYTHON, "-m", "benchmarks.bare_session", library, str(model), str(LARGEST_BATCH), "0"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return int(json.loads(done.stdout)["peak_bytes"])
