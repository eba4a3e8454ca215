"""A registry on this machine with one image of one layer: what an engine pulls from is HTTP and a few JSON files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def one_layer(size_bytes: int) -> tuple[bytes, dict[str, bytes]]:
    """The manifest, and the blobs by their digests; the content is new each time, so it is always fetched."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        content = os.urandom(size_bytes)
        member = tarfile.TarInfo("content")
        member.size = size_bytes
        tar.addfile(member, io.BytesIO(content))
    layer = gzip.compress(stream.getvalue(), 1)
    root = {"type": "layers", "diff_ids": [digest_of(stream.getvalue())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
    blobs = {digest_of(blob): blob for blob in (layer, config)}
    told = [
        {"mediaType": kind, "size": len(blob), "digest": digest_of(blob)}
        for kind, blob in ((CONFIG, config), (LAYER, layer))
    ]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": told[0], "layers": told[1:]}
    return json.dumps(manifest).encode(), blobs


@contextmanager
def registry(size_bytes: int) -> Iterator[str]:
    """The name of its image; of any other image it has nothing."""
    manifest, blobs = one_layer(size_bytes)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            last = self.path.rpartition("/")[2]
            if self.path == "/v2/":
                self.answer(b"{}", "application/json")
            elif self.path.startswith("/v2/thing/manifests/") and last in ("1.0", digest_of(manifest)):
                self.answer(manifest, MANIFEST)
            elif self.path.startswith("/v2/thing/blobs/") and last in blobs:
                self.answer(blobs[last], "application/octet-stream")
            else:
                self.answer(b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', "application/json", 404)

        do_HEAD = do_GET

        def answer(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest_of(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/thing:1.0"
        finally:
            server.shutdown()
            thread.join()
