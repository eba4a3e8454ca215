"""Requests for the load test: read from an `.npz`, or made from the server's metadata.

An `.npz` holds either arrays named like the inputs (one request), or `INDEX/INPUT` for several requests with `rows`
(rows of each, 0: no batch axis) and, for a model with states, `sequence` (the sequence that each is a step of, in
order). Strings are unicode, or all their bytes with `lengths/NAME` beside them; bfloat16 is its bits as uint16.
Requests of more rows than the model's max_batch_size are cut.
A model with a sequence batcher is sent sequences; where the payload knows none, each request is one of a single step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    tensors: tuple[Port, ...]
    rows: int
    start: bool | None = None
    end: bool | None = None

    @property
    def in_sequence(self) -> bool:
        return self.start is not None


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


def turned(requests: Sequence[PreparedRequest], number: int, count: int) -> list[PreparedRequest]:
    """At most `count` requests, each user beginning at another; of sequences whole ones, and at least one."""
    starts = [place for place, request in enumerate(requests) if request.start]
    begin = starts[number % len(starts)] if starts else number % len(requests)
    ordered = [*requests[begin:], *requests[:begin]]
    ends = [place + 1 for place, request in enumerate(ordered) if request.end]
    if ends:
        count = max([end for end in ends if end <= count], default=ends[0])
    return ordered[:count]


def rows_of(request: PreparedRequest) -> int:
    """What the throughput in rows counts: a request without a batch axis is one."""
    return max(1, request.rows)


def load_requests(target: Target, client: Any, model: str, payloads: Sequence[str]) -> list[PreparedRequest]:  # noqa: ANN401
    """The requests of one model."""
    ports = target.ask(client, "get_model_metadata", model)["inputs"]
    config = target.ask(client, "get_model_config", model)
    config = config.get("config", config)
    limit = int(config.get("max_batch_size", 0))
    stateful = config.get("sequence_batching") is not None
    file = payload_of(model, payloads)
    if file is None:
        return made_up(target, client, model, ports, limit, stateful=stateful)
    with np.load(file, allow_pickle=False) as stored:
        arrays = unpacked({name: stored[name] for name in stored.files})
    names = {port["name"] for port in ports}
    groups = [(arrays, None)] if names <= set(arrays) else grouped(arrays, names, file)
    # The sequence batcher takes single rows.
    pieces = [cut(group, rows, ports, min(limit, 1) if stateful else limit) for group, rows in groups]
    requests = [piece for group in pieces for piece in group]
    if not requests:
        raise ValueError(f"{file} holds no request")
    return flagged(requests, arrays.get("sequence")) if stateful else requests


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the strings that are stored as all their bytes and, under `lengths/NAME`, their lengths."""
    found = {name: array for name, array in arrays.items() if not name.startswith("lengths/")}
    for key in arrays.keys() - found.keys():
        lengths, whole = arrays[key], arrays[key.removeprefix("lengths/")].tobytes()
        ends = np.cumsum(lengths.ravel()).tolist()
        texts = np.empty(lengths.size, dtype=np.object_)
        texts[:] = [whole[end - size : end] for size, end in zip(lengths.ravel().tolist(), ends, strict=True)]
        found[key.removeprefix("lengths/")] = texts.reshape(lengths.shape)
    return found


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


def payload_of(model: str, payloads: Sequence[str]) -> str | None:
    for payload in payloads:
        name, _, file = payload.rpartition("=")
        if name in ("", model):
            return file
    return None


def grouped(
    arrays: Mapping[str, np.ndarray], names: set[str], file: str
) -> list[tuple[dict[str, np.ndarray], int | None]]:
    """`INDEX/INPUT` → requests in order."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        index, slash, name = key.partition("/")
        if slash and index.isdigit() and name in names:
            found.setdefault(int(index), {})[name] = array
    rows = arrays.get("rows")
    for number, group in sorted(found.items()):
        if set(group) != names:
            raise ValueError(f"request {number} of {file} lacks {sorted(names - set(group))}")
    if not found:
        raise ValueError(f"{file} has the arrays {sorted(arrays)}; the model's inputs are {sorted(names)}")
    return [(found[index], None if rows is None else int(rows[index])) for index in sorted(found)]


def cut(
    group: Mapping[str, np.ndarray], rows: int | None, ports: Sequence[Mapping[str, Any]], limit: int
) -> list[PreparedRequest]:
    """Pieces of at most max_batch_size rows; whole where the server does not batch."""
    whole = [Port(port["name"], port["datatype"], wire(fitted(group, port), port["datatype"])) for port in ports]
    if limit == 0:
        return [PreparedRequest(tuple(whole), rows or 0)]
    total = whole[0].array.shape[0]
    return [
        PreparedRequest(
            tuple(Port(port.name, port.datatype, port.array[start : start + limit]) for port in whole),
            min(limit, total - start),
        )
        for start in range(0, total, limit)
    ]


def fitted(group: Mapping[str, np.ndarray], port: Mapping[str, Any]) -> np.ndarray:
    """A vector of rows travels as [N, 1] where the server batches."""
    array = group[port["name"]]
    column = array.ndim == 1 and [int(dim) for dim in port.get("shape", [])] == [-1, 1]
    return array.reshape(-1, 1) if column else array


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


def made_up(  # noqa: PLR0913 - what is asked, and of whom
    target: Target,
    client: Any,  # noqa: ANN401
    model: str,
    ports: Sequence[Mapping[str, Any]],
    limit: int,
    *,
    stateful: bool,
) -> list[PreparedRequest]:
    """Random requests of the first size on the open dimensions that the model answers."""
    refusal = None
    for size in SIZES:
        generator = np.random.default_rng(0)
        requests = [random_request(ports, size, limit, generator) for _ in range(4)]
        requests = flagged(requests, None) if stateful else requests
        arguments = {**target.arguments, **sequence_arguments(requests[0], 1)}
        try:
            client.infer(model, request_inputs(target.module, requests[0]), **arguments)
        except Exception as error:
            refusal = refusal or error
            continue
        return requests
    raise ValueError(f"no random request fits model {model}, give --payload FILE.npz: {refusal}")


def random_request(
    ports: Sequence[Mapping[str, Any]], size: int, limit: int, generator: np.random.Generator
) -> PreparedRequest:
    tensors = []
    for port in ports:
        shape = [int(dim) if int(dim) >= 0 else size for dim in port.get("shape", [])]
        if limit:
            shape[0] = 1
        tensors.append(Port(port["name"], port["datatype"], random_array(port["datatype"], shape, generator)))
    return PreparedRequest(tuple(tensors), 1 if limit else 0)


def random_array(datatype: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    from tritonclient.utils import triton_to_np_dtype

    if datatype == "BYTES":
        return wire(np.full(shape, "text"), datatype)
    kind = triton_to_np_dtype(datatype)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 2, shape).astype(kind)
