"""The remote engine: a server that somebody else runs, named by one URL for each protocol."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from builder.errors import ServeError, SpecError
from builder.servers import Endpoint

SCHEMES: Final = {"http": ("http", False), "https": ("http", True), "grpc": ("grpc", False), "grpcs": ("grpc", True)}
POLL_S: Final = 0.25
ANSWER_S: Final = 5.0
UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"


READY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """What every call carries, and how long to wait until the server is ready."""

    headers: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    ready_timeout_s: float = READY_S


@contextlib.contextmanager
def connect(urls: Sequence[str], options: RemoteOptions | None = None) -> Iterator[Endpoint]:
    """The server behind the URLs, once it is ready; nothing is started and nothing is stopped.

    Raises:
        SpecError: a URL is wrong, the two do not go together, or the file of certificates holds none.
        ServeError: the server does not answer, or is not ready in time.
    """
    options = options or RemoteOptions()
    endpoint = parse_urls(urls, options)
    _refuse_certificates(options.ca_file)
    _wait_ready(endpoint, options.ready_timeout_s)
    yield replace(endpoint, alive=_alive_check(endpoint))


def parse_urls(urls: Sequence[str], options: RemoteOptions) -> Endpoint:
    """One address for each protocol.

    Raises:
        SpecError: a URL is wrong, a protocol is named twice, or only one of two uses TLS.
    """
    addresses: dict[str, str] = {}
    secure = set()
    for url in urls:
        protocol, tls, address = _parse(url)
        if protocol in addresses:
            msg = f"two {protocol} URLs: {addresses[protocol]} and {address}"
            raise SpecError(msg, remedy="give --url once for each protocol")
        addresses[protocol] = address
        secure.add(tls)
    if len(secure) != 1:
        msg = "no URL" if not secure else f"one URL uses TLS and the other does not: {' '.join(urls)}"
        raise SpecError(msg, remedy="--url http://HOST:8000 --url grpc://HOST:8001, or https:// and grpcs://")
    return Endpoint(
        http=addresses.get("http"),
        grpc=addresses.get("grpc"),
        metrics=None,
        tls=secure.pop(),
        # HTTP does not tell capitals apart, and gRPC refuses them.
        headers=tuple((name.lower(), value) for name, value in options.headers),
        ca_file=options.ca_file,
    )


def _parse(url: str) -> tuple[str, bool, str]:
    remedy = "write http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        msg = f"{url!r} is no server URL: {error}"
        raise SpecError(msg, remedy=remedy) from error
    if parts.scheme not in SCHEMES or not parts.hostname or port is None or parts.path.strip("/"):
        msg = f"{url!r} is no server URL"
        raise SpecError(msg, remedy=remedy)
    protocol, tls = SCHEMES[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return protocol, tls, f"{host}:{port}"


def _refuse_certificates(ca_file: str | None) -> None:
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        msg = f"{ca_file} holds no certificates: {error.strerror or error}"
        raise SpecError(msg, remedy="--ca-file names a PEM file with the certificates to trust") from error


def _wait_ready(endpoint: Endpoint, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while problem := _problem(endpoint):
        if UNTRUSTED in problem:
            msg = f"{endpoint.http or endpoint.grpc} shows a certificate that is not trusted: {problem}"
            raise ServeError(
                msg, remedy="--ca-file CERTIFICATES.pem names those that are; the URL's host must be in it"
            )
        if time.monotonic() > deadline:
            msg = f"{endpoint.http or endpoint.grpc} is not ready after {timeout_s:g} s: {problem}"
            raise ServeError(msg, remedy="check the address, and the server's log; --ready-timeout 10m waits longer")
        time.sleep(POLL_S)


def _alive_check(endpoint: Endpoint) -> Callable[[], None]:
    def alive() -> None:
        if problem := _problem(endpoint):
            msg = f"the server at {endpoint.http or endpoint.grpc} is gone or not ready: {problem}"
            raise ServeError(msg, remedy="look into the server's log")

    return alive


def _problem(endpoint: Endpoint) -> str:
    """What keeps one of the addresses from being ready; empty where all are."""
    if endpoint.http and (problem := _http_problem(endpoint, endpoint.http)):
        return problem
    return _grpc_problem(endpoint, endpoint.grpc) if endpoint.grpc else ""


def _http_problem(endpoint: Endpoint, address: str) -> str:
    connection: http.client.HTTPConnection
    if endpoint.tls:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
        connection = http.client.HTTPSConnection(address, timeout=ANSWER_S, context=context)
    else:
        connection = http.client.HTTPConnection(address, timeout=ANSWER_S)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/v2/health/ready", headers=dict(endpoint.headers))
            status = connection.getresponse().status
    except OSError as error:
        return f"http {address}: {error}"
    except http.client.HTTPException as error:
        return f"http {address}: what answers there does not speak HTTP ({type(error).__name__})"
    return "" if status == http.client.OK else f"http {address}: /v2/health/ready answers {status}"


def _grpc_problem(endpoint: Endpoint, address: str) -> str:
    # The reason is told in the end; gRPC's own log would repeat it at every look.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(address, ssl=endpoint.tls, root_certificates=endpoint.ca_file)
    try:
        ready = client.is_server_ready(headers=dict(endpoint.headers), client_timeout=ANSWER_S)
    except InferenceServerException as error:
        return f"grpc {address}: {error.message()}"
    finally:
        client.close()
    return "" if ready else f"grpc {address}: not ready"
