"""What Triton puts into the inputs that it fills for a batch, and which values of a batch belong to which request.

Written once for the reference and for the embedded server, which copies this one file into another environment: numpy
and the standard library only. Read from `backend_input_collector.cc` and `backend_output_responder.cc`: the native
backends put the values of all requests one after the other, whatever their sizes, and tell the model by further inputs
where each begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Json = dict[str, Any]
Shape = tuple[int, ...]

DTYPES = {"TYPE_FP32": "float32", "TYPE_INT32": "int32"}
DEFAULT_KIND = "BATCH_ELEMENT_COUNT"


def filled(kind: str, shapes: Sequence[Shape], dtype: str) -> Array:
    """The tensor of a `batch_input` for requests that sent its source in these full shapes."""
    import numpy as np

    counts = [prod(shape) for shape in shapes]
    if kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        # The server says it by the size alone, and leaves in the memory what was there.
        return np.zeros(max(counts), dtype)
    if kind in ("BATCH_ITEM_SHAPE", "BATCH_ITEM_SHAPE_FLATTEN"):
        rows: Array = np.asarray([shape[1:] for shape in shapes for _ in range(shape[0])], dtype)
        return rows if kind == "BATCH_ITEM_SHAPE" else rows.ravel()
    ends = np.cumsum([0, *counts])
    values = {
        "BATCH_ELEMENT_COUNT": counts,
        "BATCH_ACCUMULATED_ELEMENT_COUNT": ends[1:],
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": ends,
    }
    return np.asarray(values[kind], dtype)


class RaggedBatches:
    """The batches of one configuration, in a backend of the embedded server."""

    def __init__(self, config: Json) -> None:
        self.inputs = {io["name"] for io in config.get("input", []) if io.get("allow_ragged_batch")}
        self.filled = [
            (name, item.get("kind", DEFAULT_KIND), item["source_input"][0], DTYPES[item["data_type"]])
            for item in config.get("batch_input", [])
            for name in item["target_name"]
        ]
        dims = {io["name"]: [int(dim) for dim in io["dims"]] for io in config.get("output", [])}
        self.outputs = {
            name: (item["source_input"][0], [-1, *dims[name]])
            for item in config.get("batch_output", [])
            for name in item["target_name"]
        }

    def __bool__(self) -> bool:
        return bool(self.inputs or self.filled)

    def merged(self, requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """The inputs of one run for all of them."""
        import numpy as np

        arrays = {
            name: np.concatenate([one[name].ravel() if name in self.inputs else one[name] for one in requests])
            for name in requests[0]
        }
        for name, kind, source, dtype in self.filled:
            arrays[name] = filled(kind, [one[source].shape for one in requests], dtype)
        return arrays

    def scattered(self, name: str, result: Array, requests: Sequence[Mapping[str, Array]]) -> list[Array]:
        """An output cut by the sizes that an input had in each request."""
        source, dims = self.outputs[name]
        shapes = [
            tuple(one[source].shape[axis] if size < 0 else size for axis, size in enumerate(dims)) for one in requests
        ]
        flat, found, start = result.ravel(), [], 0
        for shape in shapes:
            found.append(flat[start : start + prod(shape)].reshape(shape))
            start += prod(shape)
        return found
