"""Where the requests of a load test go, and by which of tritonclient's modules."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Any


def _header(text: str) -> tuple[str, str]:
    """`Name: value`; in small letters, which HTTP does not tell apart and gRPC asks for."""
    name, colon, value = text.partition(":")
    if not colon:
        msg = f"--header {name!r} is not NAME:VALUE"
        raise ValueError(msg)
    return name.strip().lower(), value.strip()


class Target:
    """An address and a protocol; `arguments` go with every request."""

    def __init__(self, protocol: str, address: str, *, tls: bool, options: Namespace) -> None:
        self.protocol = protocol
        self.address = address
        self.tls = tls
        self.module = import_module(f"tritonclient.{protocol}")
        self.timeout_s: float = options.request_timeout_s
        self.ca_file: str = options.ca_file
        lines = Path(options.header_file).read_text(encoding="utf-8").splitlines() if options.header_file else []
        self.arguments: dict[str, Any] = {"headers": dict(_header(text) for text in (*options.header, *lines))}
        if protocol == "grpc":
            self.arguments["client_timeout"] = self.timeout_s

    def client(self) -> Any:  # noqa: ANN401 - tritonclient's, of the protocol
        """A client for the greenlet that calls this."""
        settings: dict[str, Any] = {"ssl": True} if self.tls else {}
        if self.protocol == "http":
            settings |= {"concurrency": 1, "network_timeout": self.timeout_s, "connection_timeout": 10.0}
            settings |= {"ssl_options": {"ca_certs": self.ca_file}} if self.ca_file else {}
        elif self.ca_file:
            settings["root_certificates"] = self.ca_file
        return self.module.InferenceServerClient(self.address, **settings)

    def ask(self, client: Any, question: str, model: str) -> dict[str, Any]:  # noqa: ANN401
        """What the server says of a model, as plain JSON over either protocol."""
        as_json = {"as_json": True} if self.protocol == "grpc" else {}
        answer: dict[str, Any] = getattr(client, question)(model, **self.arguments, **as_json)
        return answer

    def ready_models(self, client: Any) -> list[str]:  # noqa: ANN401
        """Every model that the server says is ready."""
        as_json = {"as_json": True} if self.protocol == "grpc" else {}
        answer = client.get_model_repository_index(**self.arguments, **as_json)
        rows = answer.get("models", []) if isinstance(answer, dict) else answer
        return sorted({row["name"] for row in rows if row.get("state") == "READY"})
