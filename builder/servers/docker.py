"""The Docker engine: the image of the target release, or another, on a repository that it can only read."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import MachineError, ServeError
from builder.servers import WAIT_LONGER, Endpoint, ServeOptions, docker_guard
from builder.servers.docker_engine import connect, gpu_problem, is_rootless, socket_path, uses_selinux
from builder.servers.docker_images import BACKENDS_LABEL, choose_image
from builder.servers.docker_owner import OWNER_LABEL, own_label, remove_left_overs
from builder.servers.docker_packages import own_packages
from builder.servers.needs import Needs, needs_of
from builder.servers.ports import choose_ports
from builder.servers.server_state import (
    log_tail,
    models_folder,
    process_lives,
    raise_failures,
    read_index,
    stubs_of,
    vanished,
)

MODELS: Final = "/models"
PORTS: Final = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""Inside the container."""
SHARED_MEMORY_BYTES: Final = 1 << 30
"""A limit and no reservation; Docker's own 64 MiB are too few for the processes of Python-based models."""
POLL_S: Final = 0.05
ANSWER_S: Final = 5
END_S: Final = 5.0
LOG_LINES: Final = 4000
LOOPBACK: Final = "127.0.0.1"
USER_FOR_ROOT: Final = "1000:1000"
"""Whom the server runs as when root asks: the images' own user."""

Container = Any
"""docker.models.containers.Container, which brings no types."""


@dataclass(frozen=True, slots=True)
class _Started:
    """A container, the repository it serves, and a file for its log."""

    container: Container
    repository: Path
    log: Path

    def read_log(self) -> Path:
        """The file with what the server has written so far."""
        from docker.errors import DockerException

        with contextlib.suppress(DockerException):
            self.log.write_bytes(self.container.logs(tail=LOG_LINES))
        return self.log


@contextlib.contextmanager
def serve(repository: Path, options: ServeOptions) -> Iterator[Endpoint]:
    """Serve any Triton repository in a container; ready when every model is ready.

    Raises:
        MachineError: no engine, no image, no GPU where one is needed, or a port is taken.
        ServeError: a model did not load, with Triton's reason, or the server ended or did not get ready in time.
    """
    repository = models_folder(repository, options)
    needs = needs_of(repository)
    # The log's file has no name, so a killed process leaves none.
    with connect() as client, tempfile.TemporaryFile() as log:
        remove_left_overs(client)
        _refuse_without_gpu(client, needs, options)
        image = choose_image(client, options.release, options.image, needs)
        name = f"build-repo-{os.getpid()}-{secrets.token_hex(4)}"
        with _removed_in_the_end(client, name):
            settings = _settings(client, repository, options, needs) | {"image": image}
            settings["mounts"] += _package_mounts(client, image, repository, options)
            container = _run(client, name, settings)
            started = _Started(container, repository, Path(f"/proc/self/fd/{log.fileno()}"))
            endpoint = _ready_endpoint(started, options)
            yield endpoint


def _refuse_without_gpu(client: Any, needs: Needs, options: ServeOptions) -> None:  # noqa: ANN401
    if not needs.gpu or any("explicit" in argument for argument in options.arguments):
        return
    if problem := gpu_problem(client):
        listed = ", ".join(f"{model} ({reason})" for model, reason in needs.gpu.items())
        msg = f"models that need a GPU: {listed}; {problem}"
        raise MachineError(msg, remedy="serve it on a machine with a GPU, or build with --targets onnxruntime:fp32")


@contextlib.contextmanager
def _removed_in_the_end(client: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """By name, since an interrupt may come before the container is known here; by the guard where we could not."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    command = [sys.executable, "-I", "-S", docker_guard.__file__, socket_path(), name, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            with contextlib.suppress(DockerException, RequestException):
                client.api.remove_container(name, force=True, v=True)
                guard.kill()


def _settings(client: Any, repository: Path, options: ServeOptions, needs: Needs) -> dict[str, Any]:  # noqa: ANN401
    from docker.types import DeviceRequest, Mount

    choose_ports(options)
    given = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
    security = ["no-new-privileges", *(["label=disable"] if uses_selinux(client) else [])]
    everything = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return {
        "command": _server_command(options),
        "mounts": [Mount(MODELS, str(repository), type="bind", read_only=True)],
        "ports": {f"{inside}/tcp": (options.host, given[name] or None) for name, inside in PORTS.items()},
        "user": _user(client),
        "labels": {OWNER_LABEL: own_label()},
        "environment": {"HOME": "/tmp"},  # noqa: S108 - in the container
        "shm_size": SHARED_MEMORY_BYTES,
        "cap_drop": ["ALL"],
        "security_opt": security,
        "device_requests": everything if needs.gpu and not gpu_problem(client) else [],
    }


def _package_mounts(client: Any, image: str, repository: Path, options: ServeOptions) -> list[Any]:  # noqa: ANN401
    from docker.types import Mount

    packages = own_packages(client, image, BACKENDS_LABEL, repository, options.release)
    return [Mount(f"{MODELS}/{at}", str(folder), type="bind", read_only=True) for at, folder in packages.items()]


def _server_command(options: ServeOptions) -> list[str]:
    return [
        "tritonserver",
        f"--model-repository={MODELS}",
        "--model-control-mode=none",
        "--exit-on-error=false",
        *([] if options.auto_complete else ["--disable-auto-complete-config"]),
        *options.arguments,
    ]


def _user(client: Any) -> str:  # noqa: ANN401
    """The caller, who can read the repository. In a rootless engine the container's root is the caller."""
    if is_rootless(client):
        return "0:0"
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else USER_FOR_ROOT


def _run(client: Any, name: str, settings: dict[str, Any]) -> Container:  # noqa: ANN401
    """Started, with unlimited locked memory (which GPUs use) where the engine may give it."""
    from docker.errors import APIError
    from docker.types import Ulimit

    locked = settings | {"ulimits": [Ulimit(name="memlock", soft=-1, hard=-1)]}
    try:
        return _start(client, name, locked)
    except APIError as error:
        if "rlimit" not in str(error.explanation):
            raise _start_error(error) from error
    client.api.remove_container(name, force=True, v=True)
    try:
        return _start(client, name, settings)
    except APIError as error:
        raise _start_error(error) from error


def _start(client: Any, name: str, settings: dict[str, Any]) -> Container:  # noqa: ANN401
    container = client.containers.create(name=name, **settings)
    container.start()
    container.reload()
    return container


def _start_error(error: Any) -> MachineError:  # noqa: ANN401 - docker.errors.APIError
    text = str(error.explanation or error)
    if "address already in use" in text or "port is already allocated" in text:
        return MachineError(f"a port is taken: {text}", remedy="choose another port, or 0 for a free one")
    if "tritonserver" in text and "executable file not found" in text:
        return MachineError(
            "the image has no tritonserver", remedy="--image names one of Triton's; make image makes one"
        )
    if "could not select device driver" in text:
        remedy = "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker"
        return MachineError(f"the engine cannot give the container a GPU: {text}", remedy=remedy)
    if "bind source path does not exist" in text:
        remedy = "serve a folder of the machine on which the engine runs, or use --engine embedded"
        return MachineError(f"the engine does not see the repository: {text}", remedy=remedy)
    return MachineError(f"the container cannot be started: {text}", remedy="build-repo doctor; docker info")


def _ready_endpoint(started: _Started, options: ServeOptions) -> Endpoint:
    published = started.container.attrs["NetworkSettings"]["Ports"]
    addresses = {}
    for name, inside in PORTS.items():
        bound = published.get(f"{inside}/tcp") or []
        if not bound:
            _raise_ended(started)
        addresses[name] = int(bound[0]["HostPort"])
    _wait_ready(started, options, addresses)
    http, grpc, metrics = (f"{options.host}:{addresses[name]}" for name in PORTS)
    pid = int(started.container.attrs["State"]["Pid"])
    return Endpoint(http, grpc, metrics, alive=_alive_check(started, http, pid), pid=pid)


def _wait_ready(started: _Started, options: ServeOptions, ports: dict[str, int]) -> None:
    deadline = time.monotonic() + options.ready_timeout_s
    host = LOOPBACK if options.host == "0.0.0.0" else options.host  # noqa: S104 - compared, not bound
    while (index := read_index(f"{host}:{ports['http']}")) is None or not _answers(f"{host}:{ports['metrics']}"):
        if not _is_running(started.container):
            _raise_ended(started)
        if time.monotonic() > deadline:
            msg = f"the container was not ready after {options.ready_timeout_s:g} s{log_tail(started.read_log())}"
            raise ServeError(msg, remedy=WAIT_LONGER)
        time.sleep(POLL_S)
    explicit = any("explicit" in argument for argument in options.arguments)
    raise_failures(started.repository, index, started.read_log(), explicit=explicit)


def _answers(address: str) -> bool:
    """Docker accepts connections before the server does, so only an answer counts."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=ANSWER_S)) as connection:
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def _is_running(container: Container) -> bool:
    from docker.errors import NotFound

    try:
        container.reload()
    except NotFound:
        return False
    return bool(container.status == "running")


def _raise_ended(started: _Started) -> None:
    state = started.container.attrs.get("State", {})
    how = "was killed for its memory" if state.get("OOMKilled") else f"ended with {state.get('ExitCode')}"
    how = "is paused" if state.get("Paused") else how
    msg = f"the container {how}{log_tail(started.read_log())}"
    raise ServeError(msg, remedy="mend what the log says, and start the server again")


def _alive_check(started: _Started, address: str, server_pid: int) -> Callable[[], None]:
    """A function that raises once the server, or the process of one of its models, is gone."""
    # Processes of a container are seen from outside, unless the engine runs in a machine of its own.
    stubs = stubs_of(server_pid)

    def alive() -> None:
        if not _is_running(started.container):
            _raise_ended(started)
        for stub in vanished(stubs, address):
            # The engine tells of a container's end a moment after its processes are gone.
            deadline = time.monotonic() + END_S
            while not process_lives(server_pid) and time.monotonic() < deadline:
                if not _is_running(started.container):
                    _raise_ended(started)
                time.sleep(POLL_S)
            msg = f"the process of model {stub.model} died; every request for it fails{log_tail(started.read_log())}"
            raise ServeError(msg, remedy="start the server again")

    return alive
