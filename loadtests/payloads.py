"""Requests for the load test, ready to be sent: their form, and random ones made from the server's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from target import Target

SIZES = (16, 1, 3, 8, 32, 64, 224)


@dataclass(frozen=True)
class Port:
    name: str
    datatype: str
    array: np.ndarray


@dataclass(frozen=True)
class PreparedRequest:
    """`source` and `first_row`: which stored request it holds, from which row on; `start` and `end` are a step's."""

    tensors: tuple[Port, ...]
    rows: int
    start: bool | None = None
    end: bool | None = None
    source: int = -1
    first_row: int = 0

    @property
    def in_sequence(self) -> bool:
        return self.start is not None


@dataclass(frozen=True)
class Served:
    """What the server says of a model; `limit` is its max_batch_size, 1 where it takes the single rows of sequences.

    `reshapes`: tensor → the shape that the model has for the dims that clients send or get.
    """

    model: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: tuple[str, ...]
    output_types: tuple[str, ...]
    limit: int
    stateful: bool
    reshapes: Mapping[str, tuple[list[int], list[int]]] = field(default_factory=dict)


def served(target: Target, client: Any, model: str) -> Served:  # noqa: ANN401
    """The model's ports and batching."""
    ports = target.ask(client, "get_model_metadata", model)
    config = target.ask(client, "get_model_config", model)
    config = config.get("config", config)
    limit, stateful = int(config.get("max_batch_size", 0)), config.get("sequence_batching") is not None
    outputs = tuple(port["name"] for port in ports["outputs"])
    types = tuple(port["datatype"] for port in ports["outputs"])
    reshapes = {
        port["name"]: ([int(size) for size in port["reshape"]["shape"]], [int(size) for size in port["dims"]])
        for port in (*config.get("input", ()), *config.get("output", ()))
        if (port.get("reshape") or {}).get("shape")
    }
    return Served(model, ports["inputs"], outputs, types, min(limit, 1) if stateful else limit, stateful, reshapes)


def as_dims(name: str, array: np.ndarray, model: Served) -> np.ndarray:
    """A stored array as clients send or get it where the server reshapes it: open sizes keep their order."""
    if name not in model.reshapes:
        return array
    shape, dims = model.reshapes[name]
    rows = array.shape[:1] if model.limit else ()
    sizes = array.shape[len(rows) :]
    if len(sizes) != len(shape):
        return array
    open_sizes = iter(size for size, dim in zip(sizes, shape, strict=True) if dim < 0)
    return array.reshape(*rows, *(next(open_sizes) if dim < 0 else dim for dim in dims))


def request_inputs(module: ModuleType, request: PreparedRequest) -> list[Any]:
    """The inputs as tritonclient's own objects; they belong to one user."""
    inputs = []
    for tensor in request.tensors:
        sent = module.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
        sent.set_data_from_numpy(tensor.array)
        inputs.append(sent)
    return inputs


def sequence_arguments(request: PreparedRequest, sequence_id: int) -> dict[str, Any]:
    """What tritonclient is told of the sequence that a request is a step of; nothing where there is none."""
    if not request.in_sequence:
        return {}
    return {"sequence_id": sequence_id, "sequence_start": request.start, "sequence_end": request.end}


def flagged(requests: Sequence[PreparedRequest], numbers: np.ndarray | None) -> list[PreparedRequest]:
    """Where each sequence starts and ends: its number changes there; without numbers each request is a whole one."""
    known = list(range(len(requests))) if numbers is None or len(numbers) != len(requests) else numbers.tolist()
    last = len(known) - 1
    return [
        replace(
            request,
            start=place == 0 or known[place - 1] != known[place],
            end=place == last or known[place + 1] != known[place],
        )
        for place, request in enumerate(requests)
    ]


def turned(requests: Sequence[PreparedRequest], number: int, count: int) -> list[PreparedRequest]:
    """At most `count` requests, each user beginning at another; of sequences whole ones, and at least one."""
    starts = [place for place, request in enumerate(requests) if request.start]
    begin = starts[number % len(starts)] if starts else number % len(requests)
    ordered = [*requests[begin:], *requests[:begin]]
    ends = [place + 1 for place, request in enumerate(ordered) if request.end]
    if ends:
        count = max([end for end in ends if end <= count], default=ends[0])
    return ordered[:count]


def size_of(request: PreparedRequest) -> int:
    """Bytes of its inputs."""
    return sum(tensor.array.nbytes for tensor in request.tensors)


def wire(array: np.ndarray, datatype: str) -> np.ndarray:
    """As tritonclient takes it: rank ≥ 1, strings as bytes, bfloat16 by its own type."""
    array = array.reshape(1) if array.ndim == 0 else array
    if datatype == "BYTES":
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        texts = np.empty(len(flat), dtype=np.object_)
        texts[:] = flat
        return texts.reshape(array.shape)
    if datatype == "BF16" and array.dtype == np.uint16:
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return np.ascontiguousarray(array)


def refuse_above_limit(model: Served, rows: int) -> None:
    """Of a model that the server batches.

    Raises:
        ValueError: it takes fewer rows.
    """
    if model.limit and rows > model.limit:
        raise ValueError(f"model {model.model} takes at most {model.limit} rows a request; the mix asks for {rows}")


def made_up(target: Target, client: Any, model: Served, rows: int = 0) -> list[PreparedRequest]:  # noqa: ANN401
    """Random requests of the first size on the open dimensions that the model answers.

    Raises:
        ValueError: the model takes no requests of so many rows, or only its stored requests say what its rows are.
        RuntimeError: it answers no random request.
    """
    refuse_above_limit(model, rows)
    if rows and not model.limit:
        raise ValueError(
            f"model {model.model} cannot be sent requests of {rows} rows: the server takes whole requests "
            f"(max_batch_size 0) and does not say which axis is the rows; write {model.model} alone, or give samples "
            "(build-repo loadtest REPO --url URL; of the Locust file --repository REPO)"
        )
    refusal = None
    for size in SIZES:
        generator = np.random.default_rng(0)
        requests = [random_request(model, size, rows or 1, generator) for _ in range(4)]
        requests = flagged(requests, None) if model.stateful else requests
        arguments = {**target.arguments, **sequence_arguments(requests[0], 1)}
        try:
            client.infer(model.model, request_inputs(target.module, requests[0]), **arguments)
        except Exception as error:
            refusal = refusal or error
            continue
        return requests
    wanted = ", ".join(f"{port['name']} {port['datatype']} {port.get('shape', [])}" for port in model.inputs)
    raise RuntimeError(
        f"no random request fits model {model.model}, give --payload FILE.npz with arrays for {wanted}: {refusal}"
    )


def random_request(model: Served, size: int, rows: int, generator: np.random.Generator) -> PreparedRequest:
    tensors = []
    for port in model.inputs:
        shape = [int(dim) if int(dim) >= 0 else size for dim in port.get("shape", [])]
        if model.limit:
            shape[0] = rows
        tensors.append(Port(port["name"], port["datatype"], random_array(port["datatype"], shape, generator)))
    return PreparedRequest(tuple(tensors), rows if model.limit else 0)


def random_array(datatype: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    from tritonclient.utils import triton_to_np_dtype

    if datatype == "BYTES":
        return wire(np.full(shape, "text"), datatype)
    kind = triton_to_np_dtype(datatype)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 2, shape).astype(kind)
