from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

from builder.cache import Cache, default_cache, disk_error, open_cache, publish, session
from builder.errors import MachineError


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    open_cache(made)
    return made


def test_the_variable_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_REPO_CACHE", str(tmp_path / "x"))
    assert default_cache().root == tmp_path / "x"
    monkeypatch.setenv("BUILD_REPO_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().root == tmp_path / "xdg" / "build-repo"


def test_it_is_marked_as_a_cache(cache: Cache) -> None:
    assert (cache.root / "CACHEDIR.TAG").read_text(encoding="utf-8").startswith("Signature: 8a477f597d28d172789f0688")


def test_a_result_is_complete_or_absent(cache: Cache) -> None:
    with session(cache) as folder:
        (folder / "k").mkdir()
        (folder / "k" / "file").write_text("one", encoding="utf-8")
        assert not cache.has("export", "k")
        publish(folder / "k", cache.folder("export", "k"))
    assert cache.has("export", "k")
    assert list((cache.root / "tmp").iterdir()) == []


def test_of_two_equal_results_the_first_stays(cache: Cache) -> None:
    with session(cache) as folder:
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "file").write_text(name, encoding="utf-8")
            publish(folder / name, cache.folder("export", "k"))
        assert list(folder.glob("[!l]*")) == []
    assert (cache.folder("export", "k") / "file").read_text(encoding="utf-8") == "one"


HOLD = """
import sys, time
from pathlib import Path
from builder.cache import Cache, session
with session(Cache(Path(sys.argv[1]))) as folder:
    (folder / "part").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_the_session_of_a_running_build_stays_and_that_of_a_killed_one_goes(cache: Cache) -> None:
    command = [sys.executable, "-c", HOLD, str(cache.root)]
    with subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            open_cache(cache)
            assert len(list((cache.root / "tmp").glob("*/part"))) == 1
        finally:
            child.send_signal(signal.SIGKILL)
    open_cache(cache)
    assert list((cache.root / "tmp").iterdir()) == []


def test_a_folder_without_a_lock_is_left_over(cache: Cache) -> None:
    (cache.root / "tmp" / "1-abc").mkdir()
    open_cache(cache)
    assert list((cache.root / "tmp").iterdir()) == []


def _sessions(root: Path, times: int) -> None:
    for _ in range(times):
        open_cache(Cache(root))
        with session(Cache(root)) as folder:
            (folder / "file").write_text("x", encoding="utf-8")
            assert (folder / "file").read_text(encoding="utf-8") == "x"


def test_builds_that_start_together_do_not_remove_each_others_sessions(cache: Cache) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_sessions, args=(cache.root, 40)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]


def test_a_cache_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot write"):
        open_cache(Cache(tmp_path / "file" / "cache"))


def test_a_full_disk_is_named_with_what_to_do() -> None:
    error = disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Path("x"))
    assert error.exit_code == 4
    assert "the disk is full" in error.message
    assert "BUILD_REPO_CACHE" in error.remedy
