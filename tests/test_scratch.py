"""What killed processes leave is removed by the next one; what living ones hold is not."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

from builder.scratch import make_scratch, temporary_folder

HOLD = """
import time
from builder.scratch import temporary_folder
with temporary_folder("test") as folder:
    (folder / "part").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_killed_process_leaves_nothing_after_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for purpose in ("other", "test"):
        (tmp_path / f"build-repo-{purpose}-1-abc").mkdir()
    others = ["build-repo-other-1-abc", "build-repo-test-1-abc"]
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command, env=environment(TMPDIR=str(tmp_path)), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            folder = Path(child.stdout.readline().strip())
            with temporary_folder("test") as own:
                assert own != folder
                assert (folder / "part").is_file(), "it lives"
        finally:
            child.send_signal(signal.SIGKILL)
    assert (folder / "part").is_file()
    with temporary_folder("test") as own:
        assert names(tmp_path) == sorted([*others, own.name])
    assert names(tmp_path) == others


def _folders(where: Path, times: int) -> None:
    import tempfile

    tempfile.tempdir = str(where)
    for _ in range(times):
        with temporary_folder("test") as folder:
            (folder / "file").write_text("x", encoding="utf-8")
            assert (folder / "file").read_text(encoding="utf-8") == "x"


def test_processes_side_by_side_do_not_remove_each_others(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_folders, args=(tmp_path, 60)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        make_scratch(tmp_path / "absent")
