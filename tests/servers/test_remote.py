"""A server that somebody else runs."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from triton_models import doubling, doubling_config, wait_until, write_onnx

from builder.errors import ServeError, SpecError
from builder.runtime import Runtime
from builder.servers import ServeOptions
from builder.servers.embedded import serve
from builder.servers.remote import READY_S, RemoteOptions, connect, parse_urls


def test_both_protocols_of_a_running_server(runtime: Runtime, tmp_path: Path) -> None:
    write_onnx(tmp_path, "double", doubling(), doubling_config("onnxruntime"))
    with serve(tmp_path, ServeOptions(release=runtime.release)) as own:
        with connect((f"http://{own.http}", f"grpc://{own.grpc}"), RemoteOptions(headers=(("a", "b"),))) as endpoint:
            assert (endpoint.http, endpoint.grpc, endpoint.metrics, endpoint.tls) == (own.http, own.grpc, None, False)
            assert endpoint.headers == (("a", "b"),)
            endpoint.alive()
        for url in (f"http://{own.http}", f"grpc://{own.grpc}"):
            with connect((url,)) as endpoint:
                endpoint.alive()
        with (
            pytest.raises(ServeError, match=r"does not speak HTTP \(BadStatusLine\)"),
            connect((f"http://{own.grpc}",), RemoteOptions(ready_timeout_s=0.3)),
        ):
            pass
    with pytest.raises(ServeError, match="is gone or not ready"):
        wait_until(lambda: endpoint.alive() is not None, 3)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc"])
def test_nobody_there(scheme: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = RemoteOptions(ready_timeout_s=0.3)
    with (
        pytest.raises(ServeError, match=f"{address} is not ready after 0.3 s") as caught,
        connect((f"{scheme}://{address}",), options),
    ):
        pass
    assert ("http:// or grpc://" if scheme == "https" else "https:// or grpcs://") in str(caught.value.remedy)


@contextmanager
def web_server(status: int, **headers: str) -> Iterator[str]:
    """Something that answers every GET so: its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "headers", "words", "remedy"),
    [
        (404, {}, "/v2/health/ready answers 404", "--url the address of Triton itself"),
        (401, {}, "/v2/health/ready answers 401", "--header"),
        (302, {"Location": "https://elsewhere/"}, "answers 302 and points to https://elsewhere/", "--url"),
    ],
)
def test_what_never_becomes_a_ready_server_is_not_waited_for(
    status: int, headers: dict[str, str], words: str, remedy: str
) -> None:
    begun = time.monotonic()
    with (
        web_server(status, **headers) as address,
        pytest.raises(ServeError, match=words) as caught,
        connect((f"http://{address}",)),
    ):
        pass
    assert remedy in caught.value.remedy
    assert time.monotonic() - begun < READY_S / 2


def test_a_server_that_is_not_ready_yet_is_waited_for() -> None:
    options = RemoteOptions(ready_timeout_s=0.3)
    with (
        web_server(400) as address,
        pytest.raises(ServeError, match=r"is not ready after 0\.3 s: .* answers 400"),
        connect((f"http://{address}",), options),
    ):
        pass


def test_a_grpc_server_that_is_no_triton() -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ServeError) as caught, connect((f"grpc://127.0.0.1:{port}",)):
            pass
    finally:
        server.stop(None).wait()
    assert "the address of Triton itself" in caught.value.remedy


@pytest.mark.parametrize("scheme", ["http", "https", "grpc"])
def test_a_host_that_is_not_known(scheme: str) -> None:
    """By RFC 6761 no name below .invalid ever is; a machine without a name service cannot say so."""
    with pytest.raises(socket.gaierror) as asked:
        socket.getaddrinfo("triton.invalid", 8000)
    if asked.value.errno != socket.EAI_NONAME:
        pytest.skip(f"this machine cannot tell that a host is not known: {asked.value}")
    with pytest.raises(ServeError) as caught, connect((f"{scheme}://triton.invalid:8000",)):
        pass
    assert "how the host of --url is spelt" in caught.value.remedy


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        (("localhost:8000",), "is no server URL"),
        (("http://localhost",), "is no server URL"),
        (("http://localhost:x",), "is no server URL"),
        (("ftp://localhost:1",), "is no server URL"),
        (("http://localhost:1/v2",), "is no server URL"),
        (("http://a:1", "http://b:1"), "two http URLs: a:1 and b:1"),
        (("https://a:1", "grpc://a:2"), "one URL uses TLS"),
        ((), "no URL"),
    ],
)
def test_wrong_urls(urls: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_urls(urls, RemoteOptions())
    assert "--url" in caught.value.remedy or "http://HOST:" in caught.value.remedy


def test_an_address_as_serve_prints_it_lacks_the_protocol() -> None:
    with pytest.raises(SpecError) as caught:
        parse_urls(("127.0.0.1:8001",), RemoteOptions())
    assert caught.value.remedy == "say the protocol: --url http://127.0.0.1:8001 or --url grpc://127.0.0.1:8001"


def test_tls_and_ipv6() -> None:
    endpoint = parse_urls(("https://[::1]:8000/", "grpcs://[::1]:8001"), RemoteOptions(ca_file="ca.pem"))
    assert (endpoint.http, endpoint.grpc, endpoint.tls, endpoint.ca_file) == (
        "[::1]:8000",
        "[::1]:8001",
        True,
        "ca.pem",
    )
