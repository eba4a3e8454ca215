"""One small client for both protocols, over tritonclient: whole requests in, plain arrays and records out.

A client belongs to the thread that opened it: tritonclient's own objects must not cross threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from builder.errors import MachineError, ServeError
from builder.servers import Endpoint
from builder.tensors import BY_NUMPY, BY_WIRE, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]

Protocol = Literal["http", "grpc"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("http", "grpc")
SPELLED: Final[dict[str, str]] = {"http": "HTTP", "grpc": "gRPC"}
REQUEST_TIMEOUT_S: Final = 60.0


class RequestFailedError(ServeError):
    """The server refused a request or did not answer it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Triton's counters of one model since it was loaded (its warm-up included).

    `requests` were answered, `inferences` are their rows, `executions` are runs of the model; `batches` pairs a batch
    size with the number of runs of that size.
    """

    requests: int = 0
    inferences: int = 0
    executions: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    batches: tuple[tuple[int, int], ...] = ()
    cache_hits: int = 0


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """The sequence that a request belongs to, and whether it is its first or last one."""

    sequence_id: int | str
    start: bool
    end: bool

    def arguments(self) -> dict[str, Any]:
        """In tritonclient's words."""
        return {"sequence_id": self.sequence_id, "sequence_start": self.start, "sequence_end": self.end}


@dataclass(slots=True)
class Client:
    """tritonclient of one protocol, bound to one endpoint."""

    protocol: Protocol
    module: ModuleType
    raw: Any
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = REQUEST_TIMEOUT_S
    version: str = ""
    """Which version of every model is asked; the newest that is served when empty."""

    def infer(
        self, model: str, signature: Signature, inputs: Arrays, step: SequenceStep | None = None
    ) -> dict[str, Array]:
        """Send one request, a `step` where the model keeps states, and wait for every output of the signature.

        Raises:
            RequestFailedError: the server refused it, broke the connection or took too long.
        """
        sent = [self._input(tensor, inputs[tensor.name]) for tensor in signature.inputs]
        wanted = [self._output(tensor.name) for tensor in signature.outputs]
        more: dict[str, Any] = {"client_timeout": self.timeout_s} if self.protocol == "grpc" else {}
        more |= step.arguments() if step else {}
        with self.errors(model):
            result = self.raw.infer(
                model, sent, model_version=self.version, outputs=wanted, headers=self.headers, **more
            )
            answers = {tensor.name: result.as_numpy(tensor.name) for tensor in signature.outputs}
        return {name: array for name, array in answers.items() if array is not None}

    def metadata(self, model: str) -> Signature:
        """Names, order, dtypes and shapes as the server announces them; the batch axis is among the dimensions."""
        data = self._ask(model, "get_model_metadata")
        return Signature(_announced(data.get("inputs", [])), _announced(data.get("outputs", [])))

    def config(self, model: str) -> dict[str, Any]:
        """The served ModelConfig in Triton's own names; unset fields are missing."""
        data = self._ask(model, "get_model_config")
        return cast("dict[str, Any]", data.get("config", data))

    def statistics(self, model: str) -> Statistics:
        """The counters of the client's version, else of all served ones together."""
        data = self._ask(model, "get_inference_statistics")
        return _statistics(data.get("model_stats", []))

    def all_statistics(self) -> dict[str, Statistics]:
        """The counters of every model on the server."""
        versions: dict[str, list[Mapping[str, Any]]] = {}
        for version in self._ask("", "get_inference_statistics").get("model_stats", []):
            versions.setdefault(str(version["name"]), []).append(version)
        return {name: _statistics(found) for name, found in versions.items()}

    def ready_models(self) -> tuple[str, ...]:
        """Every model that the server says is ready, sorted."""
        limits = {"as_json": True, "client_timeout": self.timeout_s} if self.protocol == "grpc" else {}
        with self.errors("*"):
            data = self.raw.get_model_repository_index(headers=self.headers, **limits)
        rows = data.get("models", []) if isinstance(data, dict) else data
        return tuple(sorted({str(row["name"]) for row in rows if row.get("state") == "READY"}))

    def infer_shapes(self, model: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> dict[str, tuple[int, ...]]:
        """Send tritonclient's own inputs and outputs, which lie in shared memory; the shapes of what was written there.

        Raises:
            RequestFailedError: as `infer`.
        """
        more: dict[str, Any] = {"client_timeout": self.timeout_s} if self.protocol == "grpc" else {}
        with self.errors(model):
            result = self.raw.infer(
                model, list(inputs), model_version=self.version, outputs=list(outputs), headers=self.headers, **more
            )
            answer = result.get_response()
            rows = answer["outputs"] if isinstance(answer, dict) else answer.outputs
            named = [(row["name"], row["shape"]) if isinstance(row, dict) else (row.name, row.shape) for row in rows]
        return {name: tuple(int(size) for size in shape) for name, shape in named}

    @contextmanager
    def registered(self, name: str, key: str, size_bytes: int) -> Iterator[None]:
        """The server knows the shared memory `key` as `name`, and forgets it on leaving.

        Raises:
            RequestFailedError: it cannot open it.
        """
        with self.errors("*"):
            self.raw.register_system_shared_memory(name, key, size_bytes, headers=self.headers)
        try:
            yield
        finally:
            with suppress(Exception):  # a server that is gone has forgotten it
                self.raw.unregister_system_shared_memory(name, headers=self.headers)

    def _ask(self, model: str, method: str) -> dict[str, Any]:
        limits = {"as_json": True, "client_timeout": self.timeout_s} if self.protocol == "grpc" else {}
        with self.errors(model):
            answer = getattr(self.raw, method)(model, model_version=self.version, headers=self.headers, **limits)
            return cast("dict[str, Any]", answer)

    def _input(self, tensor: Tensor, array: Array) -> Any:  # noqa: ANN401 - tritonclient's own type
        wire = wire_array(tensor, array)
        sent = self.module.InferInput(tensor.name, list(wire.shape), BY_NUMPY[tensor.dtype].wire)
        sent.set_data_from_numpy(wire)
        return sent

    def _output(self, name: str) -> Any:  # noqa: ANN401
        binary = {"binary_data": True} if self.protocol == "http" else {}
        return self.module.InferRequestedOutput(name, **binary)

    @contextmanager
    def errors(self, model: str) -> Iterator[None]:
        """What tritonclient raises becomes a RequestFailedError."""
        try:
            yield
        except Exception as error:
            text = str(error).strip() or type(error).__name__
            msg = f"{SPELLED[self.protocol]} request to model '{model}' failed: {text}"
            raise RequestFailedError(msg, remedy="the server's log says more") from error


@contextmanager
def open_client(
    endpoint: Endpoint, protocol: Protocol, *, timeout_s: float = REQUEST_TIMEOUT_S, version: str = ""
) -> Iterator[Client]:
    """A client of this thread, closed on leaving.

    Raises:
        MachineError: tritonclient is not installed.
        ServeError: the endpoint does not offer the protocol.
    """
    address = endpoint.grpc if protocol == "grpc" else endpoint.http
    if address is None:
        msg = f"the server offers no {SPELLED[protocol]}"
        raise ServeError(msg, remedy=f"give --url {protocol}://HOST:PORT")
    module = _module(protocol)
    raw = module.InferenceServerClient(address, **_settings(endpoint, protocol, timeout_s))
    try:
        yield Client(protocol, module, raw, dict(endpoint.headers), timeout_s, version)
    finally:
        raw.close()


def offered(endpoint: Endpoint) -> tuple[Protocol, ...]:
    """The protocols that the endpoint has an address for."""
    return tuple(protocol for protocol in PROTOCOLS if (endpoint.grpc if protocol == "grpc" else endpoint.http))


def ready_models(endpoint: Endpoint) -> tuple[str, ...]:
    """What a server serves.

    Raises:
        ServeError: it serves nothing, or does not answer.
    """
    protocols = offered(endpoint)
    found: tuple[str, ...] = ()
    if protocols:
        with open_client(endpoint, protocols[0]) as client:
            found = client.ready_models()
    if not found:
        raise ServeError("the server has no model that is ready", remedy="see its log; or name a model with --model")
    return found


def wire_array(tensor: Tensor, array: Array) -> Array:
    """As Triton takes it: rank ≥ 1 (native configs write a scalar as [1]) and strings as bytes."""
    import numpy as np

    shaped = np.asarray(array)
    shaped = shaped.reshape(1) if shaped.ndim == 0 else shaped
    if tensor.dtype != "string":
        return np.ascontiguousarray(shaped)
    wire = np.empty(shaped.shape, dtype=np.object_)
    wire.reshape(-1)[:] = [item if isinstance(item, bytes) else str(item).encode() for item in shaped.ravel()]
    return wire


def difference(after: Statistics, before: Statistics) -> Statistics:
    """What happened between two readings."""
    earlier = dict(before.batches)
    batches = ((size, count - earlier.get(size, 0)) for size, count in after.batches)
    return Statistics(
        requests=after.requests - before.requests,
        inferences=after.inferences - before.inferences,
        executions=after.executions - before.executions,
        queue_ns=after.queue_ns - before.queue_ns,
        compute_ns=after.compute_ns - before.compute_ns,
        batches=tuple((size, count) for size, count in batches if count > 0),
        cache_hits=after.cache_hits - before.cache_hits,
    )


def _module(protocol: Protocol) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(f"tritonclient.{protocol}")
    except ImportError as error:
        msg = f"tritonclient for {SPELLED[protocol]} cannot be imported: {error}"
        raise MachineError(msg, remedy="pip install 'tritonclient[http,grpc]'") from error


def _settings(endpoint: Endpoint, protocol: Protocol, timeout_s: float) -> dict[str, Any]:
    settings: dict[str, Any] = {"ssl": True} if endpoint.tls else {}
    if protocol == "http":
        settings |= {"connection_timeout": min(timeout_s, 10.0), "network_timeout": timeout_s}
        if endpoint.ca_file:
            settings["ssl_options"] = {"ca_certs": endpoint.ca_file}
    elif endpoint.ca_file:
        settings["root_certificates"] = endpoint.ca_file
    return settings


def _announced(tensors: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=str(tensor["name"]),
            dtype=BY_WIRE[str(tensor["datatype"])].numpy,
            shape=tuple(
                size if size >= 0 else f"d{axis}"
                for axis, size in enumerate(int(size) for size in tensor.get("shape", []))
            ),
        )
        for tensor in tensors
    )


def _statistics(versions: Sequence[Mapping[str, Any]]) -> Statistics:
    batches: dict[int, int] = {}
    for version in versions:
        for batch in version.get("batch_stats", []):
            size = int(batch.get("batch_size", 0))
            batches[size] = batches.get(size, 0) + _duration(batch, "compute_infer", "count")
    parts = [version.get("inference_stats", {}) for version in versions]
    steps = ("compute_input", "compute_infer", "compute_output")
    return Statistics(
        requests=sum(_duration(part, "success", "count") for part in parts),
        inferences=sum(int(version.get("inference_count", 0)) for version in versions),
        executions=sum(int(version.get("execution_count", 0)) for version in versions),
        queue_ns=sum(_duration(part, "queue", "ns") for part in parts),
        compute_ns=sum(_duration(part, step, "ns") for part in parts for step in steps),
        batches=tuple(sorted(batches.items())),
        cache_hits=sum(_duration(part, "cache_hit", "count") for part in parts),
    )


def _duration(stats: Mapping[str, Any], step: str, unit: str) -> int:
    return int(stats.get(step, {}).get(unit, 0))
