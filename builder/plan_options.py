"""The words of the spec that one backend alone understands, as its module takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from builder import defaults
from builder.code_digest import path_digest
from builder.spec import ModelSpec, OpenVinoSpec, TensorRtSpec
from builder.spec_serving import BatchingSpec

NO_OPTIONS: Final = json.dumps({})
SAY_STREAMS: Final = ("NUM_STREAMS", "PERFORMANCE_HINT")
"""Parameters under `config:` by which the spec itself says how many requests run at a time."""


def backend_options(model: ModelSpec, backend: str) -> str:
    """All of them, as canonical JSON: what decides the artefact, and how it runs."""
    words: Mapping[str, Any] = {}
    if backend.startswith("onnxruntime") and model.onnxruntime is not None:
        words = model.onnxruntime.model_dump(exclude_defaults=True)
    if backend == "openvino":
        words = (model.openvino or OpenVinoSpec()).model_dump(exclude_defaults=True) | _streams(model)
    if backend == "pytorch" and model.pytorch is not None:
        words = model.pytorch.model_dump(exclude_defaults=True)
    if backend == "python" and model.source.environment is not None:
        words = {"environment": path_digest(model.source.environment)}
    if backend == "tensorrt":
        words = (model.tensorrt or TensorRtSpec()).model_dump(exclude_defaults=True) | _batch_sizes(model)
    return json.dumps(words, sort_keys=True)


def _streams(model: ModelSpec) -> dict[str, int]:
    """Triton's instances share one compiled network, and its streams are how many of them run at a time."""
    said = model.openvino or OpenVinoSpec()
    parameters = model.config.get("parameters")
    if said.streams or said.hint or (isinstance(parameters, Mapping) and any(key in parameters for key in SAY_STREAMS)):
        return {}
    instances = sum(group.count for group in model.instances or () if not group.passive)
    return {"streams": instances} if instances > 1 else {}


def _batch_sizes(model: ModelSpec) -> dict[str, int]:
    """The largest batch that an engine must take, and the one that it is best at."""
    batching = model.batching or BatchingSpec()
    largest = batching.max_batch_size or defaults.MAX_BATCH_SIZE
    return {"max_batch_size": largest, "best_batch_size": max(batching.preferred, default=largest)}
