"""The remote engine: a server that somebody else runs, named by one URL for each protocol."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
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
TRUST: Final = "--ca-file CERTIFICATES.pem names those that are; the URL's host must be in it"
SPELLING: Final = "check how the host of --url is spelt"
NO_TRITON: Final = "give --url the address of Triton itself: it answers /v2/health/ready there"
HEADER: Final = "--header 'Authorization: Bearer TOKEN' sends what the server asks for"
HTTP_REMEDIES: Final = {401: HEADER, 403: HEADER, 404: NO_TRITON, 405: NO_TRITON, 501: NO_TRITON}
GRPC_REMEDIES: Final = {"UNAUTHENTICATED": HEADER, "PERMISSION_DENIED": HEADER, "UNIMPLEMENTED": NO_TRITON}
"""Answers of something that will not be a ready server, however long one waits."""
OTHER_SCHEME: Final = {
    False: "check the address (a server with TLS is https:// or grpcs://)",
    True: "check the address (a server without TLS is http:// or grpc://)",
}
"""Whether TLS was spoken → what to look at where nothing ready answers."""
UNKNOWN_HOST: Final = ("Domain name not found", "Name or service not known")
"""What gRPC's two resolvers say; it has no code for it."""
READY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """What every call carries, and how long to wait until the server is ready."""

    headers: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    ready_timeout_s: float = READY_S


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps an address from being ready; with a remedy where waiting for it does not help."""

    text: str
    remedy: str = ""


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
    if "://" not in url:
        remedy = f"say the protocol: --url http://{url} or --url grpc://{url}"
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
        if problem.remedy:
            raise ServeError(problem.text, remedy=problem.remedy)
        if time.monotonic() > deadline:
            msg = f"{endpoint.http or endpoint.grpc} is not ready after {timeout_s:g} s: {problem.text}"
            raise ServeError(
                msg, remedy=f"{OTHER_SCHEME[endpoint.tls]}, and the server's log; --ready-timeout 10m waits longer"
            )
        time.sleep(POLL_S)


def _alive_check(endpoint: Endpoint) -> Callable[[], None]:
    def alive() -> None:
        if problem := _problem(endpoint):
            msg = f"the server at {endpoint.http or endpoint.grpc} is gone or not ready: {problem.text}"
            raise ServeError(msg, remedy="look into the server's log")

    return alive


def _problem(endpoint: Endpoint) -> Problem | None:
    """Of the first of the addresses that is not ready; None where all are."""
    if endpoint.http and (problem := _http_problem(endpoint, endpoint.http)):
        return problem
    return _grpc_problem(endpoint, endpoint.grpc) if endpoint.grpc else None


def _http_problem(endpoint: Endpoint, address: str) -> Problem | None:
    connection: http.client.HTTPConnection
    if endpoint.tls:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
        connection = http.client.HTTPSConnection(address, timeout=ANSWER_S, context=context)
    else:
        connection = http.client.HTTPConnection(address, timeout=ANSWER_S)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/v2/health/ready", headers=dict(endpoint.headers))
            answer = connection.getresponse()
    except ssl.SSLCertVerificationError as error:
        return Problem(f"{address} shows a certificate that is not trusted: {error}", TRUST)
    except socket.gaierror as error:
        return Problem(f"http {address}: {error.strerror}", SPELLING if error.errno == socket.EAI_NONAME else "")
    except OSError as error:
        return Problem(f"http {address}: {error}")
    except http.client.HTTPException as error:
        return Problem(f"http {address}: what answers there does not speak HTTP ({type(error).__name__})", NO_TRITON)
    text = f"http {address}: /v2/health/ready answers {answer.status}"
    if moved := answer.getheader("Location"):
        return Problem(f"{text} and points to {moved}", NO_TRITON)
    return None if answer.status == http.client.OK else Problem(text, HTTP_REMEDIES.get(answer.status, ""))


def _grpc_problem(endpoint: Endpoint, address: str) -> Problem | None:
    # The reason is told in the end; gRPC's own log would repeat it at every look.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(address, ssl=endpoint.tls, root_certificates=endpoint.ca_file)
    try:
        ready = client.is_server_ready(headers=dict(endpoint.headers), client_timeout=ANSWER_S)
    except InferenceServerException as error:
        text, code = f"grpc {address}: {error.message()}", str(error.status()).removeprefix("StatusCode.")
        if UNTRUSTED in text:
            return Problem(f"{address} shows a certificate that is not trusted: {text}", TRUST)
        unknown = any(words in text for words in UNKNOWN_HOST)
        return Problem(text, SPELLING if unknown else GRPC_REMEDIES.get(code, ""))
    finally:
        client.close()
    return None if ready else Problem(f"grpc {address}: not ready")
