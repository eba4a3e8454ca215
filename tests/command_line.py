"""`build-repo` of this very checkout in its own process, and what it left behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 240


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as one JSON document."""
        return json.loads(self.out)


def environment(cache: Path | None = None, **more: str) -> dict[str, str]:
    """This process's, with the package of the checkout first."""
    made = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return made if cache is None else {**made, "BUILD_REPO_CACHE": str(cache)}


def start(*arguments: object, cwd: Path, cache: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """Start a command; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "builder", *map(str, arguments)],
        cwd=cwd,
        env=environment(cache, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, cwd: Path, cache: Path | None = None, timeout: float = TIMEOUT_S, **more: str) -> Ran:
    """Run a command to its end."""
    with start(*arguments, cwd=cwd, cache=cache, **more) as child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return Ran(child.returncode, out, err)


def build(*arguments: object, cwd: Path, check: str = "none", **more: Any) -> Ran:
    """`build` without the live check."""
    return run("build", *arguments, "--check", check, cwd=cwd, **more)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Every path below, with content and time of change."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, without the manifest's section on the run."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = found.get("build-repo.json")
    if manifest:
        data = json.loads(manifest)
        del data["run"]
        found["build-repo.json"] = json.dumps(data, indent=1).encode()
    return found


def assert_sound(repository: Path) -> None:
    """The manifest can be read, and every file it names is there with its digest."""
    from builder.digests import file_digest
    from builder.manifest import read_manifest

    manifest = read_manifest(repository)
    assert manifest is not None, f"{repository} has no manifest"
    for folder, (_, served) in manifest.served_folders().items():
        for name, digest in served.files.items():
            assert file_digest(repository / folder / name) == digest, f"{folder}/{name} is another file"


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """The exit code, a message with these words, and no traceback."""
    assert ran.code == code, f"exit code {ran.code}, expected {code}\n{ran.out}\n{ran.err}"
    assert "Traceback" not in ran.err, ran.err
    for word in words:
        assert word in ran.err, f"{word!r} is not in:\n{ran.err}"
