"""Requests that Triton runs when it loads a model: the entries of the configuration and the files they read."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from builder.samples import Request
from builder.tensors import BY_NUMPY, Signature, reshaped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Json = dict[str, Any]

FOLDER = "warmup"
"""Beside `config.pbtxt`; Triton looks nowhere else."""


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input: `shape` is the full one with the batch axis; `values` of that shape, or what to fill it with."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: NDArray[np.generic] | None = None
    fill: Literal["zero", "random"] = "zero"


@dataclass(frozen=True, slots=True)
class WarmupRequest:
    """One warm-up request, run `count` times."""

    name: str
    inputs: tuple[WarmupInput, ...]
    count: int = 1


def warmup_from_samples(signature: Signature, requests: Sequence[Request], count: int) -> tuple[WarmupRequest, ...]:
    """The first `count` sample requests as warm-up requests."""
    return tuple(
        WarmupRequest(
            f"sample_{index}",
            tuple(
                WarmupInput(
                    tensor.name,
                    tensor.dtype,
                    tuple(int(size) for size in request.inputs[tensor.name].shape),
                    request.inputs[tensor.name],
                )
                for tensor in signature.inputs
            ),
        )
        for index, request in enumerate(requests[:count])
    )


def warmup_entry(request: WarmupRequest, *, max_batch_size: int) -> Json:
    """The `model_warmup` entry. With batching Triton merges `batch_size` copies of one row, so dims hold a row."""
    rows = min((item.shape[0] for item in request.inputs), default=1) if max_batch_size else 1
    entry: Json = {"name": request.name, "batch_size": max(1, min(rows, max_batch_size or 1))}
    if request.count > 1:
        entry["count"] = request.count
    entry["inputs"] = {
        item.name: {
            "data_type": BY_NUMPY[item.dtype].triton,
            "dims": list(item.shape[1:] if max_batch_size else item.shape) or [1],
            **(
                {"input_data_file": _file_name(request, index)}
                if item.values is not None
                else {f"{item.fill}_data": True}
            ),
        }
        for index, item in enumerate(request.inputs)
    }
    return entry


def reshape_warmup(config: Json, requests: Sequence[WarmupRequest]) -> None:
    """A warm-up request has the sizes that clients send: the dims of an input that `config:` reshapes."""
    ours = {item.name for item in requests}
    ports = {port["name"]: port for port in config["input"]}
    for entry in config.get("model_warmup", ()):
        for name, item in entry.get("inputs", {}).items():
            port = ports.get(name, {})
            shape = tuple((port.get("reshape") or {}).get("shape", ()))
            if entry["name"] in ours and shape and len(item["dims"]) == len(shape):
                item["dims"] = list(reshaped(tuple(item["dims"]), shape, tuple(port["dims"])))


def warmup_data(requests: Sequence[WarmupRequest], *, max_batch_size: int) -> dict[str, bytes]:
    """Path relative to the model's folder → content, for every input that has values; the first row with batching."""
    return {
        f"{FOLDER}/{_file_name(request, index)}": raw_bytes(
            item.values[0] if max_batch_size else item.values, item.dtype
        )
        for request in requests
        for index, item in enumerate(request.inputs)
        if item.values is not None
    }


def raw_bytes(values: Any, dtype: str) -> bytes:  # noqa: ANN401 - an array, or a row that numpy made a scalar
    """As on Triton's wire: little-endian, C order; strings as 4-byte lengths and bytes."""
    import numpy as np

    array = np.asarray(values)
    if dtype == "string":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    if dtype == "bfloat16":
        array = array.view(np.uint16)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _file_name(request: WarmupRequest, index: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', request.name)}.{index}"
