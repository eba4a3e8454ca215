"""What the server's log and index say of a failure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from builder.servers.server_state import clean_reason, failures_of, log_tail, process_lives, read_index, stub_trouble
from builder.servers.watchdog import hold, lock, remove_left_overs

STUB = "/tmp/x/backends/python/triton_python_backend_stub"


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        (f"bash: line 1: {STUB}: Text file busy", "Text file busy"),
        (f"bash: {STUB}: Permission denied", "Permission denied"),
        (
            f"{STUB}: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file",
            "error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file",
        ),
        (f'I1123 16:00:00.0 1 stub_launcher.cc:388] "Starting Python backend stub: exec {STUB} /m"', ""),
    ],
)
def test_a_model_process_that_cannot_start_is_seen_in_the_log(tmp_path: Path, line: str, trouble: str) -> None:
    log = tmp_path / "server.log"
    log.write_text(f"I1123 16:00:00.0 1 server.cc:1] fine\n{line}\n", encoding="utf-8")
    assert stub_trouble(log) == trouble


def test_a_model_that_is_not_in_the_index_is_explained_by_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "[libprotobuf ERROR t.cc:337] Error parsing text-format inference.ModelConfig: 1:17: Expected\n"
        "E1123 16:00:00.0 1 m.cc:1460] \"Poll failed for model directory 'bad': failed to read\"\n",
        encoding="utf-8",
    )
    for name in ("bad", "good", "odd"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    index = [{"name": "good", "version": "1", "state": "READY"}]
    found = {failure.model: failure.reason for failure in failures_of(tmp_path / "repository", index, log)}
    assert found == {
        "bad": "failed to read: 1:17: Expected",
        "odd": "the server did not take the folder for a model",
    }


def test_a_folder_without_a_state_is_only_right_with_explicit_control(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("", encoding="utf-8")
    (tmp_path / "repository" / "nested").mkdir(parents=True)
    index = [{"name": "nested"}]
    assert [failure.model for failure in failures_of(tmp_path / "repository", index, log)] == ["nested"]
    assert failures_of(tmp_path / "repository", index, log, explicit=True) == ()


def test_the_place_in_our_backend_is_no_part_of_the_reason() -> None:
    raised = "TritonModelException: the model expects 2 dimensions\n\nAt:\n  /tmp/model.py(112): initialize\n"
    assert clean_reason(f"Internal: {raised}") == "the model expects 2 dimensions"


def test_no_log_and_no_server() -> None:
    assert log_tail(Path("/nowhere/server.log")) == ""
    assert read_index("127.0.0.1:1") is None


def test_a_process_that_ended_does_not_live() -> None:
    assert process_lives(os.getpid())
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process_lives(process.pid)
    process.wait()
    assert not process_lives(process.pid)


def test_only_what_nobody_holds_is_a_left_over(tmp_path: Path) -> None:
    held = hold(tmp_path / "alive.lock")
    dead = tmp_path / "build-repo-dead"
    dead.mkdir()
    (tmp_path / "build-repo-dead.lock").write_text(str(dead), encoding="utf-8")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (tmp_path / "other.lock").write_text(str(stranger), encoding="utf-8")
    assert lock(tmp_path / "alive.lock") is None
    remove_left_overs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.lock", "stranger"]
    os.close(held)
