"""What a build costs that finds everything done: each work, the offline verdict, the live verdict."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.demo_model import demo
from benchmarks.figure import Figure
from benchmarks.measuring import (
    PYTHON,
    ROOT,
    Timing,
    build_repo,
    in_turns,
    median_cpu_s,
    median_s,
    run_command,
    scratch_folder,
)
from benchmarks.small_model import save_small_model

LIMIT_S = 1.0
FRAMEWORKS = ("torch", "tensorflow", "jax", "onnx", "onnxruntime", "openvino", "tensorrt", "transformers", "sklearn")
OTHERS = ("numpy", "grpc", "tritonclient", "jinja2", "pydantic", "google")
PROBE = """
import json, os, sys
from builder.cli import main
out = os.dup(1)
os.dup2(2, 1)
code = main(sys.argv[1:])
tops = sorted({name.partition(".")[0] for name in sys.modules})
os.write(out, json.dumps([code, tops]).encode())
"""


def run(*, quick: bool) -> list[Figure]:
    """A model of two layers, and the demo's classifier with its samples, labels and warm-up."""
    repeats = 3 if quick else 9
    with scratch_folder() as folder:
        save_small_model(folder / "small.onnx")
        command = build_repo("build", folder / "small.onnx", "-o", folder / "repository", "--check", "live")
        run_command(command, cache=folder / "cache")
        (timings,) = in_turns(repeats, lambda: run_command(command, cache=folder / "cache"))
        figures = [
            _figure("a model of two layers", timings),
            _imports("a model of two layers", command, folder / "cache"),
        ]
    if quick:
        return figures
    made = demo()
    (timings,) = in_turns(repeats, lambda: run_command(made.command, cache=made.cache))
    return [
        *figures,
        _figure("the demo's classifier", timings),
        _imports("the demo's classifier", made.command, made.cache),
    ]


def _figure(model: str, timings: Sequence[Timing]) -> Figure:
    details = (f"median of {len(timings)}; CPU time alone {median_cpu_s(timings):.2f} s",)
    return Figure(
        "rebuild", f"rebuild with nothing changed, {model}", median_s(timings), LIMIT_S, "s", "at most", details
    )


def _imports(model: str, command: Sequence[str], cache: Path) -> Figure:
    """How many frameworks the building process has in memory when it ends."""
    arguments = command[1:] if Path(command[0]).name == "build-repo" else command[3:]
    done = subprocess.run(
        [PYTHON, "-c", PROBE, *arguments],
        cwd=ROOT,
        env=os.environ | {"BUILD_REPO_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    code, tops = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"the rebuild ended with {code}")
    found = [name for name in FRAMEWORKS if name in tops]
    others = [name for name in OTHERS if name in tops]
    details = (f"imported: {', '.join(found) or 'none'}; of the smaller libraries: {', '.join(others)}",)
    return Figure("rebuild", f"frameworks imported by it, {model}", len(found), 0, "", "at most", details)
