"""Why the batcher merged requests or did not; pure."""

from __future__ import annotations

from typing import Final

from builder.findings import Finding, Severity
from builder.loadtest.records import ModelFigures

LEAST: Final = 20
"""Requests below which nothing is said."""
MERGED_NOTHING: Final = 0.9
AT_ONCE: Final = 1.5
"""Requests in the server at a time, from which two could meet."""


def single_share(model: ModelFigures) -> float:
    """The share of runs that held one request: exact where all requests have as many rows, else from the means."""
    runs = sum(count for _, count in model.batches)
    low, high = model.row_sizes
    if runs and low == high > 0:
        return sum(count for size, count in model.batches if size <= low) / runs
    return max(0.0, min(1.0, 2.0 - model.served / model.executions)) if model.executions else 0.0


def batching_finding(model: ModelFigures, per_s: float) -> Finding | None:
    """A word where a model that others wait for merges nothing; `per_s` requests a second reach it."""
    if model.served < LEAST or not model.executions or single_share(model) < MERGED_NOTHING:
        return None
    at_once = per_s * (model.queue_ms + model.compute_ms) / 1000
    reason, remedy = _reason(model, at_once)
    # Where requests come one at a time, nothing is lost by a model that does not batch.
    if at_once < AT_ONCE and model.max_batch_size <= 1:
        return None
    text = f"the batcher of {model.name} merged nothing: {single_share(model):.0%} of executions hold one request"
    text += f"{_sizes(model)}, because {reason}"
    severity: Severity = "info" if at_once < AT_ONCE or _never_batches(model) else "warning"
    return Finding(severity, "batching.none", text, remedy=remedy, model=model.name)


def _sizes(model: ModelFigures) -> str:
    low, high = model.row_sizes
    return f" (batch {low})" if low == high > 0 else ""


def _never_batches(model: ModelFigures) -> bool:
    return model.backend == "openvino" and model.max_batch_size <= 1


def _unbatched(model: ModelFigures) -> tuple[str, str]:
    reason = f"max_batch_size is {model.max_batch_size}"
    if _never_batches(model):
        reason += ", since Triton's openvino backend fails on more than one batch size"
        return reason, "build-repo tune measures whether an onnxruntime target with batching serves more"
    return reason, "batching: {max_batch_size: 8} where the model's rows are independent"


def _reason(model: ModelFigures, at_once: float) -> tuple[str, str]:
    if model.max_batch_size <= 1:
        return _unbatched(model)
    if 2 * model.row_sizes[0] > model.max_batch_size:
        text = f"every request fills max_batch_size {model.max_batch_size}"
        return text, "nothing is lost by that; a larger max_batch_size would let requests meet"
    if not model.dynamic_batching:
        return "dynamic_batching is off", "write dynamic_batching {} into config.pbtxt"
    if at_once < AT_ONCE:
        return f"requests arrive one at a time ({at_once:.1f} in the server on average)", "raise --users or --rate"
    if model.instances > 1 and at_once < AT_ONCE * model.instances:
        text = f"{model.instances} instances take the requests before two can meet"
        return text, "fewer instances, or a small max_queue_delay_microseconds"
    text = "requests that could meet have different shapes, or never wait for each other"
    return text, "send requests of one shape, or set a small max_queue_delay_microseconds"
