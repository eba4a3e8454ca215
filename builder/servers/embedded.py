"""The embedded engine: the real tritonserver from a wheel, in the runtime's own environment, without Docker or GPU."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder import runtime as runtimes
from builder.errors import MachineError, ServeError
from builder.runtime import Runtime
from builder.scan import RENAME, backend_of, broken_in_shell, scan_repository
from builder.servers import WAIT_LONGER, Endpoint, ServeOptions, watchdog
from builder.servers.backend_folder import BACKENDS, assemble_backends
from builder.servers.live_copy import live_copy
from builder.servers.ports import Ports, choose_ports, listens
from builder.servers.server_state import (
    log_tail,
    models_folder,
    process_lives,
    raise_failures,
    read_index,
    stub_trouble,
    stubs_of,
    vanished,
)
from builder.servers.step_packages import packages_for

__all__ = ["lacking", "live_copy", "packages_for", "serve"]

LOG_FILE: Final = "server.log"
POLL_S: Final = 0.02
STOP_S: Final = 8.0
PORT_ATTEMPTS: Final = 3
GRACE_WITH_ARGUMENTS_S: Final = 5.0
"""Arguments of the user's own may ask for files that the server writes when it ends; otherwise it is just killed."""


@dataclass(slots=True)
class _Started:
    """A running watchdog with its server."""

    process: subprocess.Popen[bytes]
    scratch: Path
    lock_file: Path

    @property
    def log(self) -> Path:
        return self.scratch / LOG_FILE

    @property
    def server_pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.scratch / watchdog.PID_FILE).read_text(encoding="utf-8"))
        return None


@contextlib.contextmanager
def serve(repository: Path, options: ServeOptions) -> Iterator[Endpoint]:
    """Serve any Triton repository; ready when every model is ready.

    Raises:
        SpecError: no such release.
        MachineError: the runtime is missing or cannot run here, or a port is taken.
        ServeError: a model did not load, with Triton's reason, or the server ended or did not get ready in time.
    """
    repository = models_folder(repository, options)
    _refuse_names(repository)
    runtime = runtimes.require(options.release)
    runtimes.check_stub(runtime)
    started, ports = _start_ready(repository, runtime, options)
    try:
        yield Endpoint(
            http=f"{options.host}:{ports.http}",
            grpc=f"{options.host}:{ports.grpc}",
            metrics=f"{options.host}:{ports.metrics}",
            alive=_alive_check(started, f"{options.host}:{ports.http}"),
        )
    finally:
        _stop(started)


def _refuse_names(repository: Path) -> None:
    """Every backend of this server is a python one: the server would wait for such a model for ever."""
    for model in scan_repository(repository):
        if backend_of(model) != "ensemble" and (broken := broken_in_shell(model)):
            msg = f"the embedded server starts each model by a shell command, in which {broken}"
            raise ServeError(msg, remedy=RENAME)


def lacking(release: str) -> dict[str, str]:
    """Backends that this server could have and the installed runtime has not, with the reason and what mends it."""
    runtime = runtimes.find(release)
    if runtime is None:
        return {}
    return {
        word: f"the embedded server has no {word} backend here: build-repo runtime install --triton {release} "
        f"--with {word} adds it"
        for word, package in BACKENDS.items()
        if package not in runtime.record.packages
    }


def _start_ready(repository: Path, runtime: Runtime, options: ServeOptions) -> tuple[_Started, Ports]:
    """A port chosen free may be gone when the server binds it: then choose again."""
    for attempt in range(PORT_ATTEMPTS):
        ports = choose_ports(options)
        started = _start(repository, runtime, options, ports)
        try:
            _wait_ready(started, repository, options, ports)
        except _PortLostError as error:
            _stop(started)
            if not ports.chosen or attempt == PORT_ATTEMPTS - 1:
                raise MachineError(str(error), remedy="choose another port, or 0 for a free one") from error
        except BaseException:
            _stop(started)
            raise
        else:
            return started, ports
    msg = "no free port was found"
    raise MachineError(msg)


class _PortLostError(Exception):
    """The server could not bind a port."""


def _start(repository: Path, runtime: Runtime, options: ServeOptions, ports: Ports) -> _Started:
    lock_folder = runtimes.home() / "servers"
    lock_folder.mkdir(parents=True, exist_ok=True)
    watchdog.remove_left_overs(lock_folder)
    prefix = f"build-repo-{os.getpid()}-{secrets.token_hex(4)}"
    scratch = Path(tempfile.gettempdir()) / prefix
    scratch.mkdir(mode=0o700)
    lock_file = lock_folder / f"{prefix}.lock"
    assemble_backends(scratch / "backends", runtime.backend_folder, runtime.record.packages)
    grace_s = GRACE_WITH_ARGUMENTS_S if options.arguments else 0.0
    command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), prefix, str(lock_file), str(scratch)]
    command += [str(grace_s), "--"]
    command += _server_command(repository, runtime, options, ports, scratch)
    with (scratch / LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(runtime, auto_complete=options.auto_complete),
            cwd=scratch,
            start_new_session=True,
        )
    return _Started(process=process, scratch=scratch, lock_file=lock_file)


def _server_command(
    repository: Path, runtime: Runtime, options: ServeOptions, ports: Ports, scratch: Path
) -> list[str]:
    return [
        str(runtime.server_folder / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={scratch / 'backends'}",
        f"--cache-directory={runtime.server_folder / 'caches'}",
        "--model-control-mode=none",
        "--exit-on-error=false",
        "--exit-timeout-secs=2",
        f"--http-address={options.host}",
        f"--http-port={ports.http}",
        "--http-thread-count=2",
        f"--grpc-address={options.host}",
        f"--grpc-port={ports.grpc}",
        "--allow-metrics=true",
        "--allow-gpu-metrics=false",
        f"--metrics-address={options.host}",
        f"--metrics-port={ports.metrics}",
        f"--backend-config=python,shm-region-prefix-name={scratch.name}",
        "--backend-config=python,thread-pool-size=2",
        *([] if options.auto_complete else ["--disable-auto-complete-config"]),
        *options.arguments,
    ]


def _environment(runtime: Runtime, *, auto_complete: bool) -> dict[str, str]:
    """The caller's, with the runtime's interpreter first and without what would lead it to other packages."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "LD_PRELOAD", "__PYVENV_LAUNCHER__")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    return environment | {
        "PATH": f"{runtime.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": runtimes.library_path(runtime),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # numpy's own thread pool would stand beside the inference library's.
        "OPENBLAS_NUM_THREADS": "1",
        "BUILD_REPO_RELEASE": runtime.release,
        "BUILD_REPO_AUTO_COMPLETE": "1" if auto_complete else "0",
    }


def _wait_ready(started: _Started, repository: Path, options: ServeOptions, ports: Ports) -> None:
    deadline = time.monotonic() + options.ready_timeout_s
    address = f"{options.host}:{ports.http}"
    while (index := read_index(address)) is None or not listens(options.host, ports.metrics):
        if started.process.poll() is not None:
            _raise_ended(started)
        if problem := stub_trouble(started.log):
            msg = f"the embedded server cannot start the process of a model: {problem}"
            raise ServeError(msg, remedy="build-repo doctor")
        if time.monotonic() > deadline:
            msg = f"the embedded server was not ready after {options.ready_timeout_s:g} s{log_tail(started.log)}"
            raise ServeError(msg, remedy=WAIT_LONGER)
        time.sleep(POLL_S)
    explicit = any("explicit" in argument for argument in options.arguments)
    raise_failures(repository, index, started.log, explicit=explicit)


def _raise_ended(started: _Started) -> None:
    text = started.log.read_text(encoding="utf-8", errors="replace")
    if "Address already in use" in text or "Socket bind failed" in text or "Socket '" in text:
        msg = f"a port was taken while the embedded server started{log_tail(started.log)}"
        raise _PortLostError(msg)
    msg = f"the embedded server ended with {started.process.returncode} while starting{log_tail(started.log)}"
    raise ServeError(msg)


def _alive_check(started: _Started, address: str) -> Callable[[], None]:
    """A function that raises once the server, or the process of one of its models, is gone."""
    server_pid = started.server_pid
    stubs = stubs_of(server_pid) if server_pid else ()

    def alive() -> None:
        if server_pid is not None and not process_lives(server_pid):
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(timeout=STOP_S)
        if started.process.poll() is not None:
            msg = f"the embedded server ended with {started.process.returncode}{log_tail(started.log)}"
            raise ServeError(msg, remedy="start the server again")
        for stub in vanished(stubs, address):
            msg = f"the process of model {stub.model} died; every request for it fails{log_tail(started.log)}"
            raise ServeError(msg, remedy="start the server again")

    return alive


def _stop(started: _Started) -> None:
    """Tell the watchdog, which then ends the server and cleans up; what it leaves undone is done here."""
    if started.process.stdin:
        with contextlib.suppress(OSError):
            started.process.stdin.write(b"stop")
            started.process.stdin.close()
    group = started.server_pid
    try:
        started.process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    if group and started.scratch.exists():
        watchdog.kill_group(group, signal.SIGKILL)
    watchdog.remove_shared_memory(started.scratch.name)
    with contextlib.suppress(FileNotFoundError):
        watchdog.remove_environments(started.lock_file.stat().st_mtime)
    shutil.rmtree(started.scratch, ignore_errors=True)
    started.lock_file.unlink(missing_ok=True)
