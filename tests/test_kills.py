"""Ctrl-C and kill -9 at many moments: the old repository stands, no process stays, and the next build simply works."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import tiny_models
from command_line import assert_sound, build, snapshot, start

KILLS = int(os.environ.get("KILLS", "25"))
CHECKED_EVERY = 6
"""After every so many kills a whole build follows."""
ARGUMENTS = ("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", "--check", "none")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that was built well, and its cache."""
    folder = tmp_path_factory.mktemp("built")
    tiny_models.linear(folder / "m.onnx")
    ran = build(*ARGUMENTS[:-2], cwd=folder, cache=folder / "cache")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(built, tmp_path / "place")


def processes_of(cache: Path) -> list[str]:
    """Every process that was started with this cache."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("BUILD_REPO_CACHE") == str(cache)
            if mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def assert_no_process_stays(cache: Path, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(cache):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)


def assert_nothing_left(place: Path) -> None:
    """Beside the output, and in the cache's folder for unfinished work."""
    assert [item.name for item in place.iterdir() if item.name.startswith(".")] == []
    assert list((place / "cache" / "tmp").iterdir()) == []


def duration(place: Path) -> float:
    """How long a build of a new source takes on this machine now."""
    tiny_models.linear(place / "m.onnx", seed=1)
    began = time.monotonic()
    assert build(*ARGUMENTS[:-2], cwd=place, cache=place / "cache").code == 0
    return time.monotonic() - began


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(place: Path) -> None:
    moments = random.Random(26)
    whole = duration(place)
    cache = place / "cache"
    ended = 0
    for number in range(KILLS):
        tiny_models.linear(place / "m.onnx", seed=100 + number)
        child = start("build", *ARGUMENTS, cwd=place, cache=cache)
        moment = whole * (number + moments.random()) / KILLS * 1.1
        try:
            child.wait(timeout=moment)
            ended += 1
        except subprocess.TimeoutExpired:
            child.kill()
        child.communicate(timeout=60)
        assert_no_process_stays(cache)
        assert_sound(place / "repo")
        if number % CHECKED_EVERY == CHECKED_EVERY - 1 or number == KILLS - 1:
            ran = build(*ARGUMENTS[:-2], cwd=place, cache=cache)
            assert ran.code == 0, f"after the kill at {moment:.2f} s: {ran.err}"
            assert_sound(place / "repo")
            assert_nothing_left(place)
    assert ended < KILLS / 2, "the kills came too late to mean something"


MOMENTS = (
    ("export: started", signal.SIGINT),
    ("export: done", signal.SIGINT),
    ("convert: started", signal.SIGINT),
    ("measure: started", signal.SIGINT),
    ("measure: started", signal.SIGTERM),
    ("measure: done", signal.SIGINT),
)


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_an_interrupt_ends_it_cleanly(place: Path, moment: str, number: signal.Signals) -> None:
    before = snapshot(place / "repo")
    tiny_models.linear(place / "m.onnx", seed=2)
    with start("build", *ARGUMENTS, "--json", cwd=place, cache=place / "cache") as child:
        assert child.stderr is not None
        said = ""
        while moment not in said:
            line = child.stderr.readline()
            assert line, f"ended before {moment!r}:\n{said}"
            said += line
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    if child.returncode == 0:
        assert moment == "measure: done", "only the very last moments may come too late"
        return
    assert child.returncode == 130, said + err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert '"check": "Interrupted"' in out
    assert processes_of(place / "cache") == [], "children end before the command does"
    assert snapshot(place / "repo") == before
    assert_nothing_left(place)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_an_interrupt_early_on_ends_it_too(place: Path, share: float) -> None:
    before = snapshot(place / "repo")
    began = time.monotonic()
    assert build("gone.onnx", cwd=place).code == 2
    whole = time.monotonic() - began
    tiny_models.linear(place / "m.onnx", seed=3)
    with start("build", *ARGUMENTS, cwd=place, cache=place / "cache") as child:
        time.sleep(whole * share)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode in (130, -signal.SIGINT)
    assert_no_process_stays(place / "cache")
    assert snapshot(place / "repo") == before
