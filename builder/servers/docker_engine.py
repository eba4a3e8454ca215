"""The engine behind the Docker SDK: reached, or the reason why not; and what it can do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from builder.errors import MachineError

TIMEOUT_S: Final = 120
ASKED_IN_PASSING_S: Final = 5
LOCAL: Final = ("unix://", "http+unix://", "npipe://")
DEFAULT_SOCKET: Final = "/var/run/docker.sock"
GPU_DEVICES: Final = ("/dev/nvidiactl", "/dev/dxg")
INSTEAD: Final = "or serve without Docker: --engine embedded"

Client = Any
"""docker.DockerClient, which brings no types."""


@contextlib.contextmanager
def connect(timeout_s: int = TIMEOUT_S) -> Iterator[Client]:
    """A client of the engine on this machine: that of `DOCKER_HOST`, else that of Docker's current context.

    Raises:
        MachineError: the SDK is not installed, no engine answers, or it is on another machine.
    """
    try:
        import docker
        from docker.errors import DockerException
        from requests.exceptions import RequestException
    except ImportError as error:
        remedy = f"pip install 'build-repo[docker]', {INSTEAD}"
        raise MachineError("the Docker SDK is not installed", remedy=remedy) from error

    host = _host()
    if host and not host.startswith(LOCAL):
        msg = f"the Docker engine {host} is on another machine, which does not see the repository"
        raise MachineError(msg, remedy=f"unset DOCKER_HOST, or docker context use default, {INSTEAD}")
    settings = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
    try:
        client = docker.from_env(timeout=timeout_s, environment=settings)
    except DockerException as error:
        raise _unreachable(host, error) from error
    try:
        yield client
    except RequestException as error:
        raise _unreachable(host, error) from error
    except DockerException as error:
        msg = f"the Docker engine refused: {getattr(error, 'explanation', None) or error}"
        raise MachineError(msg, remedy=f"docker info, {INSTEAD}") from error
    finally:
        client.close()


def _host() -> str:
    if named := os.environ.get("DOCKER_HOST"):
        return named
    from docker.context import ContextAPI

    context = ContextAPI.get_current_context()
    return str((context and context.Host) or "")


def socket_path() -> str:
    """The engine's socket file."""
    return _host().partition("://")[2] or DEFAULT_SOCKET


def _unreachable(host: str, error: Exception) -> MachineError:
    socket = host.partition("://")[2] or DEFAULT_SOCKET
    if "Permission denied" in str(error) or "PermissionError" in str(error):
        msg = f"the Docker engine at {socket} may not be used by this user"
        return MachineError(msg, remedy=f"sudo usermod -aG docker $USER, then log in again, {INSTEAD}")
    reason = "there is no such socket" if "FileNotFoundError" in str(error) else str(error)
    msg = f"no Docker engine answers at {socket}: {reason}"
    return MachineError(msg, remedy=f"sudo systemctl start docker, {INSTEAD}")


def engine_version() -> str:
    """The version of the engine that answers.

    Raises:
        MachineError: there is none.
    """
    with connect() as client:
        return str(client.version()["Version"])


def publishing_pids(ports: Collection[int]) -> tuple[int, ...]:
    """The first processes of the containers that publish one of these ports of the host; none without an engine."""
    with contextlib.suppress(MachineError), connect(timeout_s=ASKED_IN_PASSING_S) as client:
        found = [
            container["Id"]
            for container in client.api.containers()
            if any(port.get("PublicPort") in ports for port in container.get("Ports") or [])
        ]
        return tuple(int(client.api.inspect_container(name)["State"]["Pid"]) for name in found)
    return ()


def gpu_problem(client: Client) -> str:
    """Why a container cannot have a GPU here; empty where it can."""
    runtimes = client.info().get("Runtimes") or {}
    if "nvidia" in runtimes or any(Path(device).exists() for device in GPU_DEVICES):
        return ""
    return "this machine has none"


def is_rootless(client: Client) -> bool:
    """The engine runs without root: the container's root is the user."""
    return _has_security(client, "name=rootless")


def uses_selinux(client: Client) -> bool:
    """Containers may not read folders of the user unless told so."""
    return _has_security(client, "name=selinux")


def _has_security(client: Client, word: str) -> bool:
    return any(word in option for option in client.info().get("SecurityOptions") or [])
