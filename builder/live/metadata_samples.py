"""Random requests for a model of which only the server's metadata is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from builder import defaults
from builder.errors import ServeError
from builder.live.wire import ensure_alive
from builder.samples import Request
from builder.servers import Endpoint
from builder.tensors import Signature, Tensor
from builder.triton_client import RequestFailedError, offered, open_client

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

SIZES: Final = (16, 1, 3, 8, 32, 64, 224)
"""Tried in turn on dimensions of any size, until the model answers."""
LARGEST_INT: Final = 2
"""Integers below this are indices that nearly every model accepts."""


def metadata_samples(endpoint: Endpoint, model: str) -> tuple[Signature, tuple[Request, ...]]:
    """Seeded random requests that the model answers, made from the server's own metadata; no source answers.

    Raises:
        ServeError: the server does not know the model, or the model refuses every request tried.
    """
    protocols = offered(endpoint)
    if not protocols:
        raise ServeError("the server offers neither HTTP nor gRPC", remedy="give --url grpc://HOST:PORT")
    refusal = ""
    with open_client(endpoint, protocols[-1]) as client:
        signature = client.metadata(model)
        batches = int(client.config(model).get("max_batch_size", 0)) > 0
        for size in SIZES if _any_size(signature, batches) else SIZES[:1]:
            requests = tuple(_requests(signature, size, batches))
            try:
                for request in requests:
                    client.infer(model, signature, request.inputs)
            except RequestFailedError as error:
                ensure_alive(endpoint)
                refusal = refusal or error.message
                continue
            return signature, requests
    msg = f"no random request fits model '{model}': {refusal}"
    raise ServeError(msg, remedy="give real inputs: --payload FILE.npz with one array for each input")


def _any_size(signature: Signature, batches: bool) -> bool:
    return any(axis > 0 or not batches for tensor in signature.inputs for axis in tensor.dynamic_axes)


def _requests(signature: Signature, size: int, batches: bool) -> Iterator[Request]:
    import numpy as np

    generator = np.random.default_rng(defaults.SAMPLE_SEED)
    for _ in range(4):
        inputs = {tensor.name: random_array(tensor, size, batches, generator) for tensor in signature.inputs}
        yield Request(inputs=inputs, outputs={}, rows=1 if batches else 0)


def random_array(tensor: Tensor, size: int, batches: bool, generator: np.random.Generator) -> Array:
    """One input with `size` on every axis of any size, and one row where the server batches."""
    import numpy as np

    shape = [dim if isinstance(dim, int) else size for dim in tensor.shape]
    if batches:
        shape[0] = 1
    if tensor.dtype == "string":
        texts = np.empty(shape, dtype=np.object_)
        texts[...] = "text"
        return texts
    if tensor.dtype == "bool":
        return generator.integers(0, 2, shape).astype(np.bool_)
    if tensor.dtype in ("float16", "float32", "float64"):
        return generator.standard_normal(shape).astype(tensor.dtype)
    if tensor.dtype == "bfloat16":
        import ml_dtypes

        return generator.standard_normal(shape).astype(ml_dtypes.bfloat16)
    return generator.integers(0, LARGEST_INT, shape).astype(tensor.dtype)
