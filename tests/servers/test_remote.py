"""A server that somebody else runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from triton_models import doubling, doubling_config, wait_until, write_onnx

from builder.errors import ServeError, SpecError
from builder.runtime import Runtime
from builder.servers import ServeOptions
from builder.servers.embedded import serve
from builder.servers.remote import RemoteOptions, connect, parse_urls


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
        pytest.raises(ServeError, match=f"{address} is not ready after 0.3 s"),
        connect((f"{scheme}://{address}",), options),
    ):
        pass


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


def test_tls_and_ipv6() -> None:
    endpoint = parse_urls(("https://[::1]:8000/", "grpcs://[::1]:8001"), RemoteOptions(ca_file="ca.pem"))
    assert (endpoint.http, endpoint.grpc, endpoint.tls, endpoint.ca_file) == (
        "[::1]:8000",
        "[::1]:8001",
        True,
        "ca.pem",
    )
