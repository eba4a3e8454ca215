"""The command lines of Locust: one process, or a master and its workers."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from builder.loadtest.payloads import save_payload
from builder.loadtest.records import LoadOptions, LoadSubject
from builder.resources import resource
from builder.servers import Endpoint
from builder.triton_client import Protocol

CONNECTIONS: Final = 64
"""At most so many requests of one process under way in a load of planned arrivals."""
DRAIN_S: Final = 10.0


def address(endpoint: Endpoint, protocol: Protocol) -> str | None:
    """Where the requests go; None where the server does not offer the protocol."""
    return endpoint.grpc if protocol == "grpc" else endpoint.http


def users_of(options: LoadOptions) -> int:
    """With planned arrivals users are only connections; too few of them would hold the arrivals back."""
    if options.turns:
        return max(turn.users for turn in options.turns)
    if not options.is_open:
        return max(options.users, options.workers)
    if options.rate is None or options.shape == "step":
        return CONNECTIONS * options.workers
    return max(options.workers, options.users, min(CONNECTIONS * options.workers, math.ceil(options.rate)))


def commands(
    endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions, scratch: Path
) -> tuple[list[str], ...]:
    """What to start: the only process, or the master first and then every worker. Payloads are written to `scratch`."""
    shared = _shared(endpoint, models, options, scratch)
    users = str(users_of(options))
    lead = ["--headless", "-u", users, "-r", users, "--only-summary", "--exit-code-on-error", "0"]
    lead += ["--csv", str(options.report.absolute() / "load"), "--json-file", str(options.report.absolute() / "load")]
    if options.workers == 1:
        return ([*shared, *lead],)
    port = str(_free_port())
    master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    master += ["--expect-workers", str(options.workers)]
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    return ([*shared, *lead, *master], *[[*shared, *worker]] * options.workers)


def _shared(endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions, scratch: Path) -> list[str]:
    scheme = options.protocol + ("s" if endpoint.tls else "")
    command = [sys.executable, "-m", "locust", "-f", str(resource("loadtests") / "locustfile.py"), "--skip-log"]
    command += ["--host", f"{scheme}://{address(endpoint, options.protocol)}", "--result", str(scratch)]
    command += ["--measure-s", f"{options.duration_s:g}", "--request-timeout-s", f"{options.request_timeout_s:g}"]
    command += ["--drain-s", f"{min(DRAIN_S, options.request_timeout_s):g}", "--load-shape", options.shape]
    command += ["--arrivals", options.arrivals]
    command += ["--rate", f"{options.rate:g}"] if options.rate is not None else []
    command += ["--replay", str(options.replay.absolute())] if options.replay else []
    command += ["--ca-file", endpoint.ca_file] if endpoint.ca_file else []
    if endpoint.headers:
        file = scratch / "headers"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name}:{value}\n" for name, value in endpoint.headers), encoding="utf-8")
        command += ["--header-file", str(file)]
    for name, limit in options.limits:
        command += ["--limit", f"{name}={limit:g}"]
    for turn in options.turns:
        command += ["--turn", f"{','.join(turn.models)}={turn.users}={turn.seconds:g}"]
    for part in options.mix or tuple(subject.name for subject in models):
        command += ["--mix", part]
    for number, subject in enumerate(models):
        if subject.requests:
            file = scratch / f"{number}.npz"
            save_payload(file, subject.requests, rows_proven=subject.rows_proven)
            command += ["--payload", f"{subject.name}={file}"]
    return command


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
