"""Task metrics on labelled samples: what the user of a model really asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from builder.measurement import TaskMetric
from builder.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from builder.samples import Request

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]


def task_metric(
    name: str, signature: Signature, requests: Sequence[Request], got: Sequence[Arrays]
) -> TaskMetric | None:
    """The source's and the served value of a task metric; None where labels or a fitting output are missing."""
    if name != "top1" or any(request.labels is None for request in requests) or not requests:
        return None
    for tensor in signature.outputs:
        pairs = [(request, arrays[tensor.name]) for request, arrays in zip(requests, got, strict=True)]
        source = [_hits(request.outputs[tensor.name], request) for request, _ in pairs]
        target = [_hits(answer, request) for request, answer in pairs]
        rows = sum(request.labels.size for request in requests if request.labels is not None)
        if rows and None not in source and None not in target:
            return TaskMetric(name, sum(filter(None, source)) / rows, sum(filter(None, target)) / rows, rows)
    return None


def _hits(array: Array, request: Request) -> int | None:
    """Rows whose class is the label, of scores `(rows, classes)` or class numbers `(rows,)`; None for other forms.

    Scores without a place for every label are those of something else.
    """
    import numpy as np

    if request.labels is None:
        return None
    labels = np.asarray(request.labels).reshape(-1)
    if array.ndim == 2 and array.shape[0] == labels.size and array.shape[1] > 1:  # noqa: PLR2004
        if labels.size and not 0 <= labels.min() <= labels.max() < array.shape[1]:
            return None
        return int(np.count_nonzero(array.argmax(axis=-1) == labels))
    if array.shape == labels.shape and array.dtype.kind in "iu":
        return int(np.count_nonzero(array == labels))
    return None
