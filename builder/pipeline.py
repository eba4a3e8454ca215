"""Make the keys of a plan exist: skip what is cached, run the rest each in its own process, collect failures."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from builder.cache import Cache, disk_error, publish, session
from builder.convert import refusal_of
from builder.errors import BuildError, BuildRepoError, MachineError, SpecError, error_from_json
from builder.prepare import has_nothing_to_do, pass_through
from builder.processes import Children
from builder.progress import Event, Progress
from builder.records import write_record
from builder.step import needs_process, run_work
from builder.work import Convert, Measure, Prepare, Profile, Work, work_needs

LOG_TAIL_LINES: Final = 6
FULL_DISK_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one work ended; `log` and `replay` exist for failures that ran in their own process."""

    status: Literal["built", "cached", "failed"]
    seconds: float = 0.0
    error: BuildRepoError | None = None
    log: Path | None = None
    replay: str = ""


@dataclass(slots=True)
class _Run:
    """One run over the works: what is still to do, what runs, what ended."""

    cache: Cache
    folder: Path
    labels: Mapping[str, str]
    jobs: int
    fail_fast: bool
    progress: Progress
    todo: dict[str, Work]
    outcomes: dict[str, Outcome]
    children: Children = field(default_factory=Children)
    running: dict[Future[Outcome], Work] = field(default_factory=dict)
    keys: dict[Future[Outcome], str] = field(default_factory=dict)


def run_works(  # noqa: PLR0913 - the options of a build
    works: Mapping[str, Work],
    labels: Mapping[str, str],
    cache: Cache,
    *,
    jobs: int,
    fail_fast: bool,
    progress: Progress,
    known: Mapping[str, Outcome] = MappingProxyType({}),
) -> dict[str, Outcome]:
    """Make every work exist; `works` is in an order in which each follows what it needs, `known` how some ended.

    `jobs` 0 runs in this process, but for works that run a file's own code: those need a process that can leave the
    network, or that has packages of its own. A work that measures runs alone, so that its latencies mean something.

    Raises:
        MachineError: the disk is full or cannot be written: nothing later could succeed either.
    """
    outcomes = dict(known)
    for key, work in works.items():
        if key not in outcomes and cache.has(work.kind, key):
            outcomes[key] = Outcome("cached")
            progress(Event("cached", labels[key]))
    todo = {key: work for key, work in works.items() if key not in outcomes}
    if fail_fast and any(outcome.error for outcome in known.values()):
        outcomes |= dict.fromkeys(todo, _not_started())
        todo.clear()
    if todo:
        with session(cache) as folder:
            _drive(_Run(cache, folder, labels, jobs, fail_fast, progress, todo, outcomes))
    lost = BuildError("its input is gone from the cache", remedy="another program emptied the cache: build again")
    return {key: outcomes.get(key, Outcome("failed", error=lost)) for key in works}


def _drive(run: _Run) -> None:
    with ThreadPoolExecutor(max(run.jobs, 1)) as pool:
        try:
            while run.todo or run.running:
                _fail_blocked(run)
                _start_ready(run, pool)
                if not run.running:
                    break
                done, _ = wait(run.running, return_when=FIRST_COMPLETED)
                for future in done:
                    _take(run, future)
        except BaseException:
            run.children.stop()
            raise


def _take(run: _Run, future: Future[Outcome]) -> None:
    work = run.running.pop(future)
    outcome = future.result()
    run.outcomes[run.keys.pop(future)] = outcome
    if isinstance(outcome.error, MachineError):
        raise outcome.error
    tried = isinstance(work, Convert) and work.preflight
    if outcome.error and run.fail_fast and not tried:
        for key in run.todo:
            run.outcomes[key] = _not_started()
        run.todo.clear()


def _not_started() -> Outcome:
    return Outcome("failed", error=BuildError("not started: --fail-fast and another work failed"))


def _fail_blocked(run: _Run) -> None:
    """A work whose input failed has failed for the same reason."""
    for key, work in list(run.todo.items()):
        for _, need in work_needs(work):
            before = run.outcomes.get(need)
            if before is not None and before.error is not None:
                run.outcomes[key] = replace(before, seconds=0.0)
                del run.todo[key]
                break


def _start_ready(run: _Run, pool: ThreadPoolExecutor) -> None:
    for key, work in list(run.todo.items()):
        if not all(run.cache.has(kind, need) for kind, need in work_needs(work)):
            continue
        alone = any(map(_measures, (work, *run.running.values())))
        if run.running and (alone or len(run.running) >= max(run.jobs, 1)):
            continue
        future = pool.submit(_run_one, run, key, run.todo.pop(key))
        run.running[future] = work
        run.keys[future] = key


def _measures(work: Work) -> bool:
    """Whether times decide something in it; building an engine tries kernels on the device."""
    return isinstance(work, (Measure, Prepare, Profile)) or (isinstance(work, Convert) and bool(work.device))


def _run_one(run: _Run, key: str, work: Work) -> Outcome:
    label = run.labels[key]
    refusal = None
    if isinstance(work, (Prepare, Convert)):
        refusal = refusal_of(work, run.cache.folder("export", work.export))
    if refusal is not None:
        run.progress(Event("failed", label, refusal.message))
        return Outcome("failed", error=refusal)
    if isinstance(work, Prepare) and has_nothing_to_do(work, run.cache):
        return _pass_through(run, key, work)
    run.progress(Event("start", label))
    started = time.monotonic()
    try:
        outcome = (
            _run_in_process(run, key, work) if run.jobs == 0 and not needs_process(work) else _run_child(run, key, work)
        )
    except OSError as error:
        outcome = Outcome("failed", error=disk_error(error, run.folder))
    seconds = time.monotonic() - started
    detail = outcome.error.message if outcome.error else ""
    run.progress(Event("failed" if outcome.error else "done", label, detail, seconds))
    return replace(outcome, seconds=seconds)


def _pass_through(run: _Run, key: str, work: Prepare) -> Outcome:
    """A model that stays as it was exported needs no process of its own."""
    out = run.folder / key
    try:
        out.mkdir()
        pass_through(work, run.cache, out)
        publish(out, run.cache.folder(work.kind, key))
    except OSError as error:
        return Outcome("failed", error=disk_error(error, run.folder))
    return Outcome("built")


def _run_in_process(run: _Run, key: str, work: Work) -> Outcome:
    out = run.folder / key
    out.mkdir()
    try:
        run_work(work, out, run.cache)
    except BuildRepoError as error:
        shutil.rmtree(out, ignore_errors=True)
        return Outcome("failed", error=error)
    publish(out, run.cache.folder(work.kind, key))
    return Outcome("built")


def _run_child(run: _Run, key: str, work: Work) -> Outcome:
    out, record, log = (run.folder / f"{key}{suffix}" for suffix in ("", ".json", ".log"))
    out.mkdir()
    write_record(record, work)
    command = [
        sys.executable,
        "-P",
        "-X",
        "faulthandler",
        "-m",
        "builder.step",
        str(record),
        str(out),
        str(run.cache.root),
    ]
    code, answer = run.children.run(command, log)
    error = _error(code, answer, log, run)
    if error is None:
        publish(out, run.cache.folder(work.kind, key))
        return Outcome("built")
    shutil.rmtree(out, ignore_errors=True)
    if isinstance(error, MachineError):
        return Outcome("failed", error=error)
    kept = run.cache.failure(key)
    _keep_failure(kept, record, log)
    replay = [
        sys.executable,
        "-P",
        "-m",
        "builder.step",
        str(kept / "work.json"),
        str(kept / "out"),
        str(run.cache.root),
    ]
    return Outcome("failed", error=error, log=kept / "log.txt", replay=shlex.join(replay))


def _error(code: int, answer: bytes, log: Path, run: _Run) -> BuildRepoError | None:
    """What the child says went wrong; a child that could not say it died, and the log's end is all there is."""
    try:
        data = json.loads(answer)
    except ValueError:
        data = None
    if data == {} and code == 0:
        return None
    told = error_from_json(data) if data else None
    if not isinstance(told, (SpecError, MachineError)) and shutil.disk_usage(run.cache.root).free < FULL_DISK_BYTES:
        return disk_error(OSError(errno.ENOSPC, "No space left on device"), run.cache.root)
    if told:
        return told
    how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    tail = " | ".join(_last_words(log.read_text(encoding="utf-8", errors="replace")))
    more = " (out of memory is the usual reason)" if -code == signal.SIGKILL else ""
    return BuildError(f"the process {how}{more}. Its last words: {tail or 'none'}", remedy="see the log, or replay it")


def _last_words(text: str) -> list[str]:
    """The log's end; of a crash the reason and the innermost frames."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    crash = next((place for place, line in enumerate(lines) if line.startswith("Fatal Python error:")), None)
    return lines[-LOG_TAIL_LINES:] if crash is None else lines[crash : crash + LOG_TAIL_LINES]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _keep_failure(kept: Path, record: Path, log: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    shutil.move(record, kept / "work.json")
    shutil.move(log, kept / "log.txt")
