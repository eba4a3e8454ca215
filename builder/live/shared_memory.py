"""Every sample once more with its tensors in the machine's shared memory, where the server reads and writes them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from builder.compare import compare_outputs, merge_errors
from builder.live.records import LiveCondition, LiveTask, Phase
from builder.live.wire import as_sent, ensure_alive, request_finding, served_batching, shaped_like
from builder.measurement import OutputError
from builder.samples import Request
from builder.samples.recut import joined, split_rows
from builder.tensors import BY_NUMPY, Tensor
from builder.triton_client import Client, Protocol, RequestFailedError, open_client, wire_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

ALIGNED: Final = 64
"""Tensors begin at multiples of so many bytes."""


@dataclass(frozen=True, slots=True)
class _Region:
    """A piece of memory that this process and the server see, by the server's name for it."""

    name: str
    handle: Any


def check_shared_memory(task: LiveTask, protocol: Protocol) -> tuple[Phase, str]:
    """One request after the other; the text says why nothing was checked, and is empty where all was.

    Raises:
        ServeError: the server died.
    """
    if any(tensor.dtype == "string" for tensor in task.subject.served.tensors):
        return Phase(), "the size of strings is not known beforehand"
    with open_client(task.endpoint, protocol, version=task.subject.version) as client:
        try:
            with _shared(client, ALIGNED):
                pass
        except (RequestFailedError, OSError) as error:
            ensure_alive(task.endpoint)
            return Phase(), f"the server does not share this machine's memory ({_last_line(error)})"
        try:
            return Phase(tuple(_conditions(client, task))), ""
        except RequestFailedError as error:
            ensure_alive(task.endpoint)
            text = f"{error.message} (inputs and outputs in shared memory)"
            return Phase(findings=(request_finding(text, error.remedy, task.model, task.subject.target),)), ""


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _conditions(client: Client, task: LiveTask) -> Iterator[LiveCondition]:
    served = served_batching(client, task.model)
    measured: dict[int, list[tuple[OutputError, ...]]] = {}
    for request in task.subject.requests:
        pieces = split_rows(request, served.max_batch_size)
        answers = joined([_infer(client, task, as_sent(piece, served), request) for piece in pieces])
        got = shaped_like(request.outputs, answers, served)
        errors = compare_outputs(task.subject.signature, [request.outputs], [got], scales=task.scales)
        measured.setdefault(request.rows, []).append(errors)
    for rows, found in measured.items():
        yield LiveCondition(client.protocol, "shared memory", rows, len(found), merge_errors(found))


def _infer(client: Client, task: LiveTask, inputs: Arrays, request: Request) -> Arrays:
    """Send one request whose answer is at most as large as the whole request's."""
    signature = task.subject.signature
    wires = [wire_array(tensor, inputs[tensor.name]) for tensor in signature.inputs]
    room = [request.outputs[tensor.name].nbytes for tensor in signature.outputs]
    offsets, total = _offsets([*(wire.nbytes for wire in wires), *room])
    with _shared(client, total) as region:
        places = iter(offsets)
        sent = [
            _sent(client, region, tensor, wire, next(places))
            for tensor, wire in zip(signature.inputs, wires, strict=True)
        ]
        answers = dict(zip([tensor.name for tensor in signature.outputs], places, strict=True))
        wanted = [
            _wanted(client, region, tensor, size, answers[tensor.name])
            for tensor, size in zip(signature.outputs, room, strict=True)
        ]
        shapes = client.infer_shapes(task.model, sent, wanted)
        return {
            tensor.name: _read(region, shapes[tensor.name], request.outputs[tensor.name].dtype, answers[tensor.name])
            for tensor in signature.outputs
            if tensor.name in shapes
        }


def _offsets(sizes: list[int]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // ALIGNED) * ALIGNED
    return offsets, end + ALIGNED


def _sent(client: Client, region: _Region, tensor: Tensor, wire: NDArray[np.generic], offset: int) -> Any:  # noqa: ANN401
    from tritonclient.utils import shared_memory

    shared_memory.set_shared_memory_region(region.handle, [wire], offset)
    item = client.module.InferInput(tensor.name, list(wire.shape), BY_NUMPY[tensor.dtype].wire)
    item.set_shared_memory(region.name, wire.nbytes, offset)
    return item


def _wanted(client: Client, region: _Region, tensor: Tensor, size_bytes: int, offset: int) -> Any:  # noqa: ANN401
    item = client.module.InferRequestedOutput(tensor.name)
    item.set_shared_memory(region.name, size_bytes, offset)
    return item


def _read(region: _Region, shape: tuple[int, ...], dtype: Any, offset: int) -> NDArray[np.generic]:  # noqa: ANN401
    """A copy, since the memory goes with the region."""
    from tritonclient.utils import shared_memory

    held: NDArray[np.generic] = shared_memory.get_contents_as_numpy(region.handle, dtype, list(shape), offset)
    return held.copy()


@contextmanager
def _shared(client: Client, size_bytes: int) -> Iterator[_Region]:
    """Memory that the server has opened; it forgets it, and the memory goes, on every path.

    Raises:
        RequestFailedError: the server cannot open it.
        OSError: this machine has no shared memory left.
    """
    from tritonclient.utils import shared_memory

    name = f"build-repo-{secrets.token_hex(8)}"
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", size_bytes, create_only=True)
    try:
        with client.registered(name, f"/{name}", size_bytes):
            yield _Region(name, handle)
    finally:
        shared_memory.destroy_shared_memory_region(handle)
