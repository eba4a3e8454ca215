"""What is known of an export and of an artefact after running them: numbers and proofs, no verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from builder.tensors import Signature

EXPORT_FILE = "export.json"
REFERENCE_FILE = "reference.npz"
ONNX_FILE = "model.onnx"
CONVERT_FILE = "convert.json"
MEASUREMENT_FILE = "measurement.json"


@dataclass(frozen=True, slots=True)
class BatchProof:
    """What running batches showed.

    `proven`: rows of a batch equal the same rows alone, at every size in `sizes`. Otherwise `reason` says what was
    seen, and `node` the first ONNX node (`name (OpType)`) at which a batch and its rows part, where it is known.
    `refused` pairs a batch size with the library's message.
    """

    proven: bool
    sizes: tuple[int, ...] = ()
    reason: str = ""
    node: str | None = None
    refused: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`export.json`: what came out of the source and how.

    `route` is `copy`, `dynamo` or `torchscript`; `notes` are sentences for the user; `samples` says where the samples
    came from (`samples.npz, 12 rows` or `random, seed 0`).
    """

    signature: Signature
    route: str
    opset: int
    ir_version: int
    batch: BatchProof
    samples: str
    notes: tuple[str, ...] = ()
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """`convert.json`: the ports as the artefact declares them, and the sha256 of each of its files by relative path."""

    ports: Signature
    files: dict[str, str]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OutputError:
    """One output against the source's, worst over all requests.

    `max_absolute`: largest |served - source|. `max_relative`: that over the largest |source| of the output
    (dimensionless). `cosine`: smallest cosine similarity of a request, 1.0 where both are all zero. `mismatches`:
    unequal elements of integer, bool and string outputs. `new_nonfinite`: NaN or Inf where the source has none.
    `top1_agreement`: share of rows whose largest element sits at the source's place (rank ≥ 2 floats only).
    `problem`: a shape or dtype that differs, in words; then the numbers mean nothing.
    """

    name: str
    max_absolute: float = 0.0
    max_relative: float = 0.0
    cosine: float = 1.0
    mismatches: int = 0
    elements: int = 0
    new_nonfinite: int = 0
    top1_agreement: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """A task metric on labelled rows (`top1`): the source's value and the artefact's."""

    name: str
    source: float
    target: float
    rows: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one run at a batch size (0: the model has no batch axis; one sample request), in milliseconds."""

    batch_size: int
    median_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """`measurement.json`: one artefact in its own library on this machine."""

    outputs: tuple[OutputError, ...]
    batch: BatchProof
    latency: tuple[Latency, ...]
    size_bytes: int
    peak_memory_bytes: int
    compute: str
    metric: TaskMetric | None = None
    notes: tuple[str, ...] = ()
