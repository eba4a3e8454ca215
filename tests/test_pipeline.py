"""Works in their own processes: caching, failures, and processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import tiny_models
from command_line import ROOT, environment

from builder.cache import Cache, open_cache
from builder.errors import BuildError, MachineError
from builder.pipeline import Outcome, run_works
from builder.plan import Plan, make_plan
from builder.processes import PARENT_VARIABLE, Children
from builder.progress import Event
from builder.spec_file import spec_from_models
from builder.work import work_key


def plan_of(path: Path, *targets: str) -> Plan:
    spec = spec_from_models([{"name": "m", "source": {"path": str(path)}}], {"targets": list(targets)})
    return make_plan(spec)


def run(plan: Plan, root: Path, *, jobs: int = 2, fail_fast: bool = False) -> tuple[dict[str, Outcome], list[Event]]:
    cache = Cache(root)
    open_cache(cache)
    events: list[Event] = []
    works = plan.works()
    labels = {key: f"{work.kind} {getattr(work, 'target', '')}".strip() for key, work in works.items()}
    made = run_works(works, labels, cache, jobs=jobs, fail_fast=fail_fast, progress=events.append)
    return {labels[key]: outcome for key, outcome in made.items()}, events


@pytest.mark.parametrize("jobs", [0, 2])
def test_what_exists_is_not_made_again(tmp_path: Path, jobs: int) -> None:
    plan = plan_of(tiny_models.linear(tmp_path / "m.onnx"), "onnxruntime:fp32")
    first, events = run(plan, tmp_path / "cache", jobs=jobs)
    assert {outcome.status for outcome in first.values()} == {"built"}
    assert [event.kind for event in events] == ["start", "done"] * 3, "a graph that stays as it is makes no noise"
    second, events = run(plan, tmp_path / "cache", jobs=jobs)
    assert {outcome.status for outcome in second.values()} == {"cached"}
    assert [event.kind for event in events] == ["cached"] * 4
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_a_failed_work_fails_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(tiny_models.determinant(tmp_path / "d.onnx"), "openvino:fp32", "onnxruntime:fp32")
    made, _ = run(plan, tmp_path / "cache")
    status = {label: outcome.status for label, outcome in made.items()}
    assert status == {
        "export": "built",
        "prepare": "built",
        "convert openvino:fp32": "failed",
        "measure openvino:fp32": "failed",
        "convert onnxruntime:fp32": "built",
        "measure onnxruntime:fp32": "built",
    }
    failed = made["convert openvino:fp32"]
    assert isinstance(failed.error, BuildError)
    assert failed.log is not None
    assert "Det" in failed.log.read_text(encoding="utf-8")
    assert "builder.step" in failed.replay
    again, _ = run(plan, tmp_path / "cache")
    assert again["convert openvino:fp32"].status == "failed"
    assert again["export"].status == "cached"


def test_a_work_that_is_killed_fails_alone_and_says_how(tmp_path: Path) -> None:
    """As a crash of a native library does: the child cannot say anything itself."""
    plan = plan_of(tiny_models.linear(tmp_path / "m.onnx"), "onnxruntime:fp32")
    killed = threading.Event()

    def hunt() -> None:
        me = psutil.Process()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in me.children():
                with suppress(psutil.Error):  # it may have ended meanwhile
                    if "builder.step" in child.cmdline():
                        child.send_signal(signal.SIGSEGV)
                        killed.set()
                        return
            time.sleep(0.01)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    made, _ = run(plan, tmp_path / "cache", jobs=1)
    hunter.join()
    assert killed.is_set()
    error = made["export"].error
    assert isinstance(error, BuildError)
    assert "was killed by SIGSEGV" in error.message
    assert made["measure onnxruntime:fp32"].error is error
    again, _ = run(plan, tmp_path / "cache")
    assert {outcome.status for outcome in again.values()} == {"built"}, "the next build simply works"


def test_a_cache_that_is_emptied_meanwhile_is_said(tmp_path: Path) -> None:
    plan = plan_of(tiny_models.linear(tmp_path / "m.onnx"), "onnxruntime:fp32")
    run(plan, tmp_path / "cache")
    (tmp_path / "cache" / "export" / work_key(plan.models[0].export)).rename(tmp_path / "gone")
    (tmp_path / "cache" / "convert").rename(tmp_path / "gone-too")
    made, _ = run(plan, tmp_path / "cache")
    assert {label: outcome.status for label, outcome in made.items()} == {
        "export": "built",
        "prepare": "cached",
        "convert onnxruntime:fp32": "built",
        "measure onnxruntime:fp32": "cached",
    }


def test_stopping_ends_every_child_and_lets_no_other_start(tmp_path: Path) -> None:
    children = Children()
    ended: list[str] = []
    command = [
        sys.executable,
        "-c",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
    ]
    strangers = set(psutil.Process().children(recursive=True))

    def run() -> None:
        try:
            children.run(command, tmp_path / "log")
        except BuildError as error:
            ended.append(error.message)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 30
    while len(family := [one for one in psutil.Process().children(recursive=True) if one not in strangers]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children.stop()
    thread.join(10)
    assert ended == ["interrupted"], "no failure of the child's own, for which memory would be blamed"
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == [], "a child's own children go with it"
    with pytest.raises(BuildError, match="interrupted"):
        children.run(command, tmp_path / "log")


def test_a_signature_that_the_backend_refuses_starts_no_process(tmp_path: Path) -> None:
    plan = plan_of(tiny_models.doubles(tmp_path / "d.onnx"), "openvino:fp32", "onnxruntime:fp32")
    made, events = run(plan, tmp_path / "cache")
    refused = made["convert openvino:fp32"]
    assert refused.status == "failed"
    assert "TYPE_FP64" in str(refused.error)
    assert refused.log is None
    assert ("start", "convert openvino:fp32") not in [(event.kind, event.label) for event in events]


def test_a_child_whose_parent_is_already_gone_does_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builder.step", str(tmp_path / "no.json"), str(tmp_path / "out"), str(tmp_path)]
    variables = environment() | {PARENT_VARIABLE: str(os.getppid())}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=60, check=False)
    assert done.returncode == 130
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_whole_run(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a full disk is made with a small tmpfs, which only root may mount")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a full disk is made with a small tmpfs, which cannot be mounted here")
    try:
        plan = plan_of(tiny_models.linear(tmp_path / "m.onnx"), "onnxruntime:fp32")
        (place / "filler").write_bytes(b"x" * 40_000)
        with pytest.raises(MachineError, match="the disk is full"):
            run(plan, place / "cache")
    finally:
        subprocess.run(["umount", str(place)], check=True)
