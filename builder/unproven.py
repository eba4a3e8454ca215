"""What the samples cannot prove, whatever a target answers to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from builder.errors import SpecError
from builder.task_metrics import task_metric
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    from builder.samples import Request

PROVES_NOTHING: Final = "proves nothing"
"""In every note of this kind."""


def unproven(signature: Signature, requests: Sequence[Request]) -> Iterator[str]:
    """A note for each output whose answers are no numbers, and for labels on which top-1 says nothing.

    Raises:
        SpecError: labels that are classes of no output.
    """
    for tensor in signature.outputs:
        if BY_NUMPY[tensor.dtype].is_float:
            yield from _without_numbers(tensor, requests)
    yield from _labels(signature, requests)


def _without_numbers(tensor: Tensor, requests: Sequence[Request]) -> Iterator[str]:
    import numpy as np

    answers = [request.outputs[tensor.name] for request in requests]
    total = sum(answer.size for answer in answers)
    # numpy has no `isfinite` for bfloat16; float64 has numbers that float32 has not.
    wide = np.float64 if tensor.dtype == "float64" else np.float32
    numbers = sum(int(np.count_nonzero(np.isfinite(answer.astype(wide)))) for answer in answers)
    if total and not numbers:
        yield (
            f"output {tensor.name!r}: the source answers every sample with NaN or infinity alone, so a target that "
            f"does the same {PROVES_NOTHING}; give samples to which it answers with numbers"
        )
    elif numbers < total:
        share = f"{total - numbers} of {total} numbers"
        yield f"output {tensor.name!r}: {share} of the source's answers are NaN or infinite"


def _labels(signature: Signature, requests: Sequence[Request]) -> Iterator[str]:
    arrays = [request.labels for request in requests if request.labels is not None]
    labels = [int(label) for array in arrays for label in array.reshape(-1)]
    if not labels:
        return
    metric = task_metric("top1", signature, requests, [request.outputs for request in requests])
    if metric is not None:
        if not metric.source:
            yield (
                f"the source gets none of {metric.rows} labelled rows right, so top-1 {PROVES_NOTHING}; number the "
                "classes in the samples as the model does"
            )
        elif metric.source <= (often := Counter(labels).most_common(1)[0])[1] / metric.rows:
            yield (
                f"the source gets {metric.source:.1%} of {metric.rows} labelled rows right, and class {often[0]} for "
                f"every row would be right as often, so top-1 {PROVES_NOTHING}; check that the labels are those of "
                "these rows, and give rows of every class"
            )
        return
    scores = [tensor for tensor in signature.outputs if _has_classes(tensor)]
    if scores:
        raise SpecError(
            f"samples: the labels hold the class numbers {min(labels)} to {max(labels)}, and no output has such "
            f"classes: {', '.join(tensor.describe() for tensor in scores)}",
            remedy="number the classes from 0 as the model does, and leave rows out that belong to none",
        )
    yield (
        "top-1 cannot be measured, since no output is scores [rows, classes] or class numbers [rows]: a gate on it "
        f"{PROVES_NOTHING}"
    )


def _has_classes(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and isinstance(tensor.shape[1], int) and tensor.shape[1] > 1  # noqa: PLR2004
