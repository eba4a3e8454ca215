"""Every default of the product, in one place; `build-repo plan` prints them."""

from __future__ import annotations

from typing import Final

RELEASE: Final = "26.07"
TARGETS: Final = ("onnxruntime:fp32", "openvino:fp32")
SERVE: Final = "best"
OBJECTIVE: Final = "latency"
MAX_BATCH_SIZE: Final = 8
INSTANCE_COUNT: Final = 1
VERSIONS_KEPT: Final = 2
SEQUENCE_STRATEGY: Final = "oldest"
SEQUENCES: Final = 1024
"""Sequences that an instance takes at once; the next ones wait."""
SEQUENCE_IDLE_US: Final = 5_000_000
"""A sequence without requests for so long is ended; Triton's own default is one second."""
JOBS: Final = 2

MAX_RELATIVE_ERROR: Final = 0.02
"""Largest error allowed, as a share of the output's largest magnitude."""
MIN_COSINE: Final = 0.999
INT8_MAX_RELATIVE_ERROR: Final = 0.1
"""256 steps for an activation: an error of one step in every layer adds up to more than 2 % of the largest output."""
INT8_MIN_COSINE: Final = 0.99
INT8_ERROR_BESIDE_COSINE: Final = 1.0
"""Who asks for a cosine alone asks for directions (embeddings): no single element may be as wrong as the largest is
large, and else the cosine decides."""
INT8_MAX_DROP: Final = 0.01
"""Where the samples are labelled: what int8 may lose of the task metric then decides, instead of the two above."""

OPTIMIZE: Final = "auto"
CALIBRATOR: Final = "minmax"
CALIBRATION_SAMPLES: Final = 300
"""At most; never more than half of the rows, so that accuracy is judged on others."""
SEARCH_BUDGET_S: Final = 120.0
"""Seconds that may go into finding the nodes that must stay in fp32."""

SAMPLE_SEED: Final = 0
ODD_BATCH: Final = 3
SAMPLE_LENGTHS: Final = (16, 7, 32)
"""Sizes tried on dynamic axes that are not the batch axis."""

LOAD_USERS: Final = 8
LATENCY_USERS: Final = 1
"""Clients of a load whose latency is looked at: requests that wait for each other say more of the queue."""
LOAD_DURATION: Final = "30s"
LOAD_SEARCH: Final = "80s"
"""How long the highest rate is looked for."""
LOAD_PROTOCOL: Final = "grpc"

TUNE_BUDGET: Final = "5m"
"""For each model."""

OUTPUT: Final = "model_repository"
ENGINE_CACHE: Final = "/tmp/build-repo-engines"  # noqa: S108 - a folder of the server's machine, which the spec can move
"""Where ONNX Runtime keeps the TensorRT engines that it builds in the server."""
