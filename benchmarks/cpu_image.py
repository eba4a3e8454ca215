"""The slim image of `make image`: its size, and the time from `docker run` to one small model being ready."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.measuring import build_repo, run_command, scratch_folder
from benchmarks.small_model import save_small_model
from builder.errors import MachineError
from builder.servers.docker_engine import engine_version

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "build-repo/tritonserver-cpu:bench"
LIMIT_MB = 900
LIMIT_S = 5
GIVE_UP_S = 120
POLL_S = 0.02


def run(*, quick: bool) -> list[Figure]:
    """Nothing where no Docker engine answers."""
    try:
        version = engine_version()
    except MachineError as error:
        print(f"skipped  cpu_image: {error.message}")
        return []
    subprocess.run(["make", "image", f"IMAGE={IMAGE}"], cwd=ROOT, check=True, capture_output=True)
    (found,) = json.loads(_docker("image", "inspect", IMAGE))
    with scratch_folder() as folder:
        save_small_model(folder / "small.onnx")
        words = ("--targets", "onnxruntime:fp32", "--check", "offline")
        run_command(build_repo("build", str(folder / "small.onnx"), "-o", str(folder / "repo"), *words))
        seconds = [_ready_s(folder / "repo") for _ in range(1 if quick else 5)]
    told = (f"engine {version}; from {min(seconds):.2f} s to {max(seconds):.2f} s",)
    return [
        Figure("cpu_image", "size of the slim image", found["Size"] / 1e6, LIMIT_MB, "MB", "at most"),
        Figure("cpu_image", "`docker run` to ready", statistics.median(seconds), LIMIT_S, "s", "at most", told),
    ]


def _ready_s(repository: Path) -> float:
    started = time.perf_counter()
    name = _docker("run", "-d", "-p", "127.0.0.1:0:8000", "-v", f"{repository}:/models:ro", IMAGE)
    try:
        address = _docker("port", name, "8000")
        while not _is_ready(address):
            if time.perf_counter() - started > GIVE_UP_S:
                raise TimeoutError(_docker("logs", name))
            time.sleep(POLL_S)
        return time.perf_counter() - started
    finally:
        _docker("rm", "-f", name)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()
