"""What is known of an export and of an artefact after running them: numbers and proofs, no verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from builder.tensors import Signature, Tensor

EXPORT_FILE = "export.json"
REFERENCE_FILE = "reference.npz"
SERVED_FILE = "served.npz"
"""The same requests as clients send them, where the model takes them otherwise."""
BATCH = "batch"
ONNX_FILE = "model.onnx"
TORCHSCRIPT_FILE = "model.pt"
STEP_FOLDER = "step"
FORMAT_FILES = {"onnx": ONNX_FILE, "torchscript": TORCHSCRIPT_FILE, "python": STEP_FOLDER}
"""What an export may write, each where a target needs it and the source can be written so."""
CALIBRATION_FILE = "calibration.npz"
CALIBRATION_TABLE = "calibration.json"
PREPARE_FILE = "prepare.json"
CONVERT_FILE = "convert.json"
MEASUREMENT_FILE = "measurement.json"
PREFLIGHT_FILE = "preflight.json"
TENSORS_FILE = "tensors.npz"
ENSEMBLE_FILE = "ensemble.json"


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
class Sequencing:
    """How a model is asked in sequences.

    `states` pairs inputs with the outputs that give the next one, `controls` kinds (`start`) with the inputs that
    Triton sets. `sizes` are those that axes open in the model have all the same: a state has one shape.
    """

    states: tuple[tuple[str, str], ...]
    controls: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def inner_inputs(self) -> frozenset[str]:
        """Inputs that no client sends."""
        return frozenset((*(name for name, _ in self.states), *(name for _, name in self.controls)))

    @property
    def inner_outputs(self) -> frozenset[str]:
        """Outputs that no client gets."""
        return frozenset(name for _, name in self.states)


@dataclass(frozen=True, slots=True)
class FilledInput:
    """An input that Triton fills for each batch, from the sizes of the ragged input `of`; `kind` is Triton's."""

    name: str
    kind: str
    of: str


@dataclass(frozen=True, slots=True)
class Ragged:
    """How requests of unequal sizes become one batch.

    `inputs` are the ragged ones as a client sends them, with a batch axis; the model takes the values of all requests
    in one axis. `outputs` pairs those that are cut by the sizes of a ragged input with its name.
    """

    inputs: tuple[Tensor, ...]
    filled: tuple[FilledInput, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()

    def served(self, signature: Signature) -> Signature:
        """What clients see of the model's own signature: every request is one row."""
        ragged = {tensor.name: tensor for tensor in self.inputs}
        filled = {item.name for item in self.filled}
        cut = dict(self.outputs)

        def row(tensor: Tensor) -> Tensor:
            lead = ragged[cut[tensor.name]].shape if tensor.name in cut else (BATCH,)
            return replace(tensor, shape=(*lead, *tensor.shape[1:]))

        return Signature(
            tuple(ragged.get(item.name) or row(item) for item in signature.inputs if item.name not in filled),
            tuple(map(row, signature.outputs)),
        )


def served_signature(signature: Signature, sequence: Sequencing | None) -> Signature:
    """What a client sees: the source's signature without states and controls."""
    if sequence is None:
        return signature

    def without(tensors: tuple[Tensor, ...], names: frozenset[str]) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in tensors if tensor.name not in names)

    return Signature(
        without(signature.inputs, sequence.inner_inputs), without(signature.outputs, sequence.inner_outputs)
    )


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`export.json`: what came out of the source and how.

    `route` is how the first of its formats was written: `copy`, `dynamo`, `torchscript`, `script`, `trace`, …; `opset`
    and `ir_version` are None where no ONNX was. `notes` are sentences for the user; `samples` says where the samples
    came from (`samples.npz, 12 rows` or `random, seed 0`).
    """

    signature: Signature
    route: str
    opset: int | None
    ir_version: int | None
    batch: BatchProof
    samples: str
    notes: tuple[str, ...] = ()
    parameters: int | None = None
    applicable: tuple[str, ...] = ()
    """Graph transforms that find something to do here, by a look at the graph alone."""
    refused: dict[str, str] = field(default_factory=dict)
    """Formats that were asked for and that the source cannot be written as, with the reason."""
    sequence: Sequencing | None = None
    ragged: Ragged | None = None

    @property
    def recorded(self) -> Signature:
        """As the manifest has it and the samples that travel with a repository: what clients send, and states."""
        return self.ragged.served(self.signature) if self.ragged else self.signature

    @property
    def served(self) -> Signature:
        """What clients see."""
        return served_signature(self.recorded, self.sequence)


@dataclass(frozen=True, slots=True)
class EnsembleReport:
    """`ensemble.json`: what its members' sources answered, one after the other; the answers lie in `reference.npz`."""

    signature: Signature
    samples: str
    rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TransformReport:
    """One graph transform, judged on its own: what it did, and why it was kept or left out.

    Latencies are medians of one run on this machine, in milliseconds; `max_relative` is the largest change of an
    output over that output's largest magnitude.
    """

    name: str
    kept: bool
    reason: str
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    median_ms_before: float | None = None
    median_ms_after: float | None = None
    max_relative: float | None = None


@dataclass(frozen=True, slots=True)
class KeptNode:
    """An ONNX node that stays in fp32 within a graph of lower precision.

    `gain` is by how much the worst error over its gate falls by keeping it (dimensionless; infinite for an overflow,
    NaN where the time was over before that was asked).
    """

    name: str
    operator: str
    gain: float


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """How int8 was made: the mode that was chosen and, for static, the calibrator and its rows.

    `in_blocks` names the products that have a scale for every block of a row, as one for the whole tensor was too
    coarse.
    """

    mode: str
    calibrator: str | None
    rows: int
    quantized_nodes: int
    in_blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """`prepare.json`: what became of the exported graph."""

    precision: str
    dialect: str
    transforms: tuple[TransformReport, ...] = ()
    quantization: QuantizationReport | None = None
    kept_fp32: tuple[KeptNode, ...] = ()
    notes: tuple[str, ...] = ()


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
    `problem`: a shape or dtype that differs, in words; then the numbers mean nothing. `deviations`: how many finite
    elements fall into each class of `builder.deviations`; empty where that was not asked for.
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
    deviations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """A task metric on labelled rows (`top1`): the source's value and the artefact's."""

    name: str
    source: float
    target: float
    rows: int


@dataclass(frozen=True, slots=True)
class PrecisionProof:
    """What an artefact really stores and computes in, read from the opened artefact.

    `compute` pairs a type (`int8`, `fp16`, `bf16`, `fp32`) with its share of the heavy operators' work (convolutions
    and matrix products), `weights` with its share of the weights' elements; shares add up to 1, and are empty where
    there is nothing of the kind. `source` says what was read: `ONNX graph`, `OpenVINO execution graph`.
    """

    compute: tuple[tuple[str, float], ...]
    weights: tuple[tuple[str, float], ...]
    source: str


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """`preflight.json`: a deferred conversion that was tried without its device; `library` says with what."""

    library: str
    layers: int
    profiles: int
    precision: PrecisionProof


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one run at a batch size (0: the model has no batch axis; one sample request), in milliseconds.

    `least_ms` is that of the fastest run, which other programs disturbed least; 0 in records that lack it.
    """

    batch_size: int
    median_ms: float
    p90_ms: float
    runs: int
    least_ms: float = 0.0


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
    precision: PrecisionProof | None = None
