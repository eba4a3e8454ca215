"""The demo's classifier, built once for every benchmark that needs it, served by onnxruntime."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.measuring import PYTHON, ROOT, build_repo, run_command

EXAMPLE = ROOT / "examples" / "classifier"
NAME = "classifier"


@dataclass(frozen=True, slots=True)
class Demo:
    """The repository, the cache it was built with, and the command that builds it."""

    repository: Path
    cache: Path
    command: tuple[str, ...]


@cache
def demo() -> Demo:
    """Build it; the folder goes when the run ends."""
    folder = Path(tempfile.mkdtemp(prefix="build-repo-bench-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not (EXAMPLE / "downloads" / "photos.npz").is_file():
        subprocess.run([PYTHON, str(EXAMPLE / "prepare.py")], check=True)
    words = ("build", EXAMPLE / "models.yaml", "-o", folder / "repository", "--serve", "onnxruntime:fp32")
    made = Demo(folder / "repository", folder / "cache", tuple(build_repo(*words, "--check", "live")))
    run_command(made.command, cache=made.cache)
    return made
