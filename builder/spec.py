"""The spec file as types: what a user may write in `models.yaml`. Reading it is `builder.spec_file`.

Every model is frozen and refuses unknown keys, so `build-repo schema` can print the JSON Schema that editors use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from builder import defaults
from builder.errors import SpecError
from builder.problems import Problem, spec_error
from builder.spec_ragged import RaggedSpec
from builder.spec_serving import BatchingSpec, Instances, InstancesSpec, Part, SequenceSpec, VersionsSpec, WarmupSpec
from builder.spec_wiring import EnsembleWords
from builder.tensors import BY_NUMPY
from builder.yaml_lines import Lines

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
LONGEST_NAME = 200
"""A folder's name holds 255 bytes, and `serve: all` puts the target behind a model's."""


def check_name(name: str) -> str:
    """A model name is a folder name and part of a URL: letters, digits, `_`, `-` and single dots."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith("."):
        msg = f"{name!r} is no model name: it becomes a folder and a URL, so use letters, digits, '_', '-' and '.'"
        raise ValueError(msg)
    if len(name) > LONGEST_NAME:
        msg = f"{name[:20]}… has {len(name)} characters; a model name has at most {LONGEST_NAME}"
        raise ValueError(msg)
    if name == "build-repo.json":
        msg = f"{name!r} is no model name: it is the manifest's"
        raise ValueError(msg)
    return name


def check_dtype(dtype: str) -> str:
    """A numpy name, or `string`."""
    if dtype not in BY_NUMPY:
        msg = f"{dtype!r} is no dtype; one of {', '.join(sorted(set(BY_NUMPY) - {'object', 'str'}))}"
        raise ValueError(msg)
    return BY_NUMPY[dtype].numpy


def check_dim(dim: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """A size of at least 1, or the name of an axis of any size."""
    if isinstance(dim, bool) or not isinstance(dim, (int, str)):
        msg = f"{dim!r} is no dimension: a size, or a name such as batch"
        raise ValueError(msg)
    if isinstance(dim, int) and dim < 1:
        msg = f"{dim} is no size; give an axis of any size a name, such as batch or length"
        raise ValueError(msg)
    if isinstance(dim, str) and not dim.strip():
        msg = "a dimension's name is empty"
        raise ValueError(msg)
    return dim


def check_release(release: Any) -> Any:  # noqa: ANN401
    """`YY.MM`; YAML reads an unquoted 26.10 as the number 26.1."""
    text = f"{release:.2f}" if isinstance(release, float) else release
    if not isinstance(text, str) or not re.fullmatch(r"\d\d\.\d\d", text):
        msg = f'{release!r} is no Triton release; write it as "{defaults.RELEASE}"'
        raise ValueError(msg)
    return text


def check_callable(text: str) -> str:
    """`package.module:callable`."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text):
        msg = f"{text!r} is no callable; write module:function, for example my_nets:build"
        raise ValueError(msg)
    return text


def check_identifier(text: str) -> str:
    """A name in Python."""
    if not text.isidentifier():
        msg = f"{text!r} is no name in Python: letters, digits and '_'"
        raise ValueError(msg)
    return text


ObjectiveWord = Literal["latency", "throughput", "memory"]
ModelName = Annotated[str, AfterValidator(check_name)]
Release = Annotated[str, BeforeValidator(check_release)]
Dim = Annotated[int | str, BeforeValidator(check_dim)]


class SourceSpec(Part):
    """Where the trained model is and how to open it."""

    path: Path = Field(Path(), strict=False, description="File or folder, relative to the spec file")
    step: str | None = Field(None, description="In place of a path: a step that is ready to use, such as image")
    format: str | None = Field(None, description="Recognised from the file's content when left out")
    model: Annotated[str, AfterValidator(check_callable)] | None = Field(
        None, description="module:callable returning the network, for weights without architecture"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the callable")
    signature: str | None = Field(None, min_length=1, description="TensorFlow: the signature to serve, by its name")
    allow_pickle: bool = Field(default=False, description="Allow files that can run code when opened")
    import_root: Path | None = Field(
        None, strict=False, description="Folder from which the callable is imported; the spec file's own when left out"
    )
    function: Annotated[str, AfterValidator(check_identifier)] | None = Field(
        None, description="A step in Python: the function, or the class whose object is called; run when left out"
    )
    files: dict[Annotated[str, AfterValidator(check_identifier)], Annotated[Path, Field(strict=False)]] = Field(
        default_factory=dict,
        description="A step in Python: files that are served with it, by the argument that gets the path",
    )
    shapes: dict[str, Annotated[tuple[Dim, ...], Field(strict=False)]] = Field(
        default_factory=dict,
        description="A step in Python: full shapes of outputs whose sizes vary more than the samples show",
    )
    requirements: Annotated[tuple[str, ...], Field(strict=False)] | str = Field(
        (), description="A step in Python: the packages it imports, as pip names them, or a requirements.txt"
    )

    environment: Path | None = Field(
        None,
        strict=False,
        description="A step in Python: an archive of conda-pack that is served with it, in place of the requirements",
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> SourceSpec:
        if ("path" in self.model_fields_set) == (self.step is not None):
            msg = "the key 'path' is missing" if self.step is None else "path and step exclude each other"
            raise ValueError(msg)
        return self

    @property
    def package_list(self) -> tuple[str, ...]:
        """The requirements, once those of a file have been read."""
        return () if isinstance(self.requirements, str) else self.requirements


class TensorSpec(Part):
    """An input of the model."""

    name: str = Field(min_length=1)
    dtype: Annotated[str, AfterValidator(check_dtype)] = "float32"
    shape: tuple[Dim, ...] = Field(strict=False, description="Full shape: sizes, or names for axes of any size")


class SamplesSpec(Part):
    """Real inputs: an `.npz` with one array per input, named like it."""

    path: Path = Field(strict=False)
    labels: str | None = Field(None, description="The array that holds one class number a row, from 0 on")
    sequence_id: str | None = Field(
        None, description="With sequence: the array that says which sequence a row is a step of, in order"
    )


class AccuracySpec(Part):
    """The gates; a bound that is left out has the default of the target's precision.

    Below fp32 a `max_drop` alone decides (also where fp32 is computed in bf16): bounds on tensors hold beside it where
    they are given.
    """

    max_relative_error: float | None = Field(
        None, ge=0, description=f"Default {defaults.MAX_RELATIVE_ERROR}, int8 {defaults.INT8_MAX_RELATIVE_ERROR}"
    )
    min_cosine: float | None = Field(
        None, ge=-1, le=1, description=f"Default {defaults.MIN_COSINE}, int8 {defaults.INT8_MIN_COSINE}"
    )
    metric: Literal["top1"] | None = None
    max_drop: float | None = Field(None, ge=0, le=1)
    search_budget_s: float = Field(
        defaults.SEARCH_BUDGET_S, ge=0, description="Seconds to look for the nodes that must stay in fp32; 0: none"
    )


class QuantizationSpec(Part):
    """How int8 is made of the model."""

    mode: Literal["auto", "static", "dynamic"] = Field(
        "auto", description="static measures ranges on samples; dynamic suits transformers; auto looks at the graph"
    )
    calibrator: Literal["minmax", "entropy", "percentile"] = defaults.CALIBRATOR
    samples: int = Field(defaults.CALIBRATION_SAMPLES, ge=1, description="At most so many rows calibrate")
    per_channel: bool = True


AxisSize = Annotated[int, Field(ge=1, strict=True)]
AxisSizes = Annotated[tuple[AxisSize, AxisSize, AxisSize], Field(strict=False)]


class TensorRtSpec(Part):
    """How a TensorRT engine is built."""

    workspace_bytes: int | None = Field(
        None, ge=1, description="Scratch memory that a layer may use; the GPU's if left out"
    )
    version_compatible: bool = Field(
        default=False, description="Loads in later TensorRT versions of the same major one too, if the server allows it"
    )
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        "none", description="ampere_plus: one engine for every GPU since Ampere; slower than one for each"
    )
    tf32: bool = Field(default=True, description="Multiply fp32 in TF32 where the GPU has it")
    optimization_level: int | None = Field(
        None, ge=0, le=5, description="How long the builder looks; TensorRT's own is 3"
    )
    profiles: tuple[Annotated[dict[str, AxisSizes], Field(min_length=1)], ...] = Field(
        (), strict=False, description="For each: an axis that is not the batch's → [smallest, best, largest] size"
    )

    @field_validator("profiles")
    @classmethod
    def _sizes_ascend(cls, profiles: tuple[dict[str, AxisSizes], ...]) -> tuple[dict[str, AxisSizes], ...]:
        for profile in profiles:
            for axis, sizes in profile.items():
                if list(sizes) != sorted(sizes):
                    msg = f"sizes of {axis!r} are {list(sizes)}; write [smallest, best, largest]"
                    raise ValueError(msg)
        return profiles


class CudaSpec(Part):
    """ONNX Runtime's CUDA provider."""

    arena: Literal["next_power_of_two", "same_as_requested"] | None = Field(
        None, description="How its memory grows; next_power_of_two is the library's own choice"
    )
    memory_limit_bytes: int | None = Field(None, ge=1)
    cudnn_search: Literal["exhaustive", "heuristic", "default"] | None = Field(
        None, description="How a convolution's algorithm is found; exhaustive is the library's own choice"
    )
    tf32: bool | None = Field(None, description="Multiply fp32 in TF32 where the GPU has it; the library's own is yes")
    cpu_fallback: bool = Field(default=True, description="Run on the CPU where there is no GPU; else refuse to")


class AcceleratorSpec(Part):
    """TensorRT inside ONNX Runtime: the server builds engines when it loads, and keeps them."""

    engine_cache: str = Field(
        defaults.ENGINE_CACHE, min_length=1, description="Folder of the server's machine in which built engines stay"
    )
    workspace_bytes: int | None = Field(None, ge=1)
    min_subgraph_size: int | None = Field(None, ge=1, description="Smaller parts of the graph are left to CUDA")


class OnnxRuntimeSpec(Part):
    """How ONNX Runtime runs the model, when it is measured and in the server."""

    optimization: Literal["all", "extended", "basic", "disabled"] = "all"
    intra_op_threads: int | None = Field(None, ge=1, description="Threads inside one operator")
    inter_op_threads: int | None = Field(
        None, ge=1, description="Operators at a time; makes execution parallel above 1"
    )
    cuda: CudaSpec | None = Field(None, description="Run on an NVIDIA GPU; `cuda: {}` takes the library's choices")
    tensorrt: AcceleratorSpec = AcceleratorSpec()


class OpenVinoSpec(Part):
    """How OpenVINO runs the model, when it is measured and in the server."""

    threads: int | None = Field(None, ge=1, description="Of all streams together; the library's own choice if left out")
    streams: int | None = Field(
        None, ge=1, description="Requests at a time; as many as there are instances if left out and there is no hint"
    )
    hint: Literal["latency", "throughput"] | None = Field(
        None, description="OpenVINO chooses threads and streams for this goal; what is said above stands"
    )


class PyTorchSpec(Part):
    """How PyTorch runs the model, when it is measured and in the server."""

    intra_op_threads: int | None = Field(
        None, ge=1, description="Threads inside one operator; of all pytorch models of a server together"
    )


def _source_or_sources(schema: dict[str, Any]) -> None:
    """JSON Schema cannot see that one of the two is enough."""
    schema["required"] = [word for word in schema["required"] if word != "source"]
    schema["oneOf"] = [{"required": ["source"]}, {"required": ["sources"]}]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What of a completed model stands in a tuning file: words, and the target that is served while it can be."""

    words: tuple[str, ...] = ()
    target: str | None = None


class SloSpec(Part):
    """What the live server must hold under the load by which targets and settings are chosen."""

    p50_ms: float | None = Field(None, gt=0, description="Median latency of a request, milliseconds")
    p99_ms: float | None = Field(None, gt=0, description="99 of 100 requests take no longer, milliseconds")

    @model_validator(mode="after")
    def _not_empty(self) -> SloSpec:
        if not self.terms:
            msg = "say p50_ms or p99_ms, or leave slo out"
            raise ValueError(msg)
        return self

    @property
    def terms(self) -> tuple[tuple[str, float], ...]:
        """Pairs such as (`p99`, 50.0), in milliseconds."""
        given = (("p50", self.p50_ms), ("p99", self.p99_ms))
        return tuple((word, limit) for word, limit in given if limit is not None)


class ModelSpec(Part):
    """One model of the repository."""

    model_config = ConfigDict(json_schema_extra=_source_or_sources)

    name: ModelName
    source: SourceSpec = Field(description="Of the newest version, where `sources` has several")
    sources: dict[Annotated[int, Field(ge=1)], SourceSpec] = Field(
        default_factory=dict, description="Instead of source: version number → source, all served"
    )
    inputs: tuple[TensorSpec, ...] = Field((), strict=False)
    outputs: tuple[str, ...] = Field((), strict=False)
    io: Literal["fp16"] | None = Field(
        None, description="fp16: float32 inputs and outputs travel as FP16, half the bytes, whatever the target"
    )
    samples: SamplesSpec | None = None
    class_names: Path | None = Field(None, strict=False, description="One name a line; becomes Triton's label file")
    targets: tuple[str, ...] | None = Field(None, strict=False)
    serve: str | None = Field(None, description="best, all, or one target")
    objective: ObjectiveWord | None = Field(
        None,
        description="What best means by the measurement in process; what tune found on the live server is above it",
    )
    slo: SloSpec | None = Field(None, description="Latency that the best target must hold on the live server")
    accuracy: AccuracySpec | None = None
    optimize: Literal["auto", "none"] | None = Field(
        None, description="auto: graph transforms that were measured to help; none: the graph as exported"
    )
    quantization: QuantizationSpec | None = None
    batching: BatchingSpec | None = None
    instances: Instances | None = None
    sequence: SequenceSpec | None = None
    ragged: RaggedSpec | None = None
    onnxruntime: OnnxRuntimeSpec | None = None
    openvino: OpenVinoSpec | None = None
    pytorch: PyTorchSpec | None = None
    tensorrt: TensorRtSpec | None = None
    warmup: WarmupSpec | None = None
    response_cache: bool = Field(default=False, description="Answers of equal requests from tritonserver's cache")
    checksums: bool = Field(default=False, description="The server verifies its copy of the model's files at load")
    versions: VersionsSpec | None = None
    config: dict[str, Any] = Field(default_factory=dict, description="Fields of Triton's ModelConfig, in its names")
    configs: dict[ModelName, dict[str, Any]] = Field(
        default_factory=dict, description="Other configurations, for tritonserver --model-config-name: name → fields"
    )

    _tuned: Tuned = PrivateAttr(Tuned())

    @property
    def tuned(self) -> Tuned:
        """What the user did not write."""
        return self._tuned

    def with_tuned(self, tuned: Tuned) -> ModelSpec:
        """The same model, with the mark."""
        marked = self.model_copy()
        marked._tuned = tuned  # noqa: SLF001 - a copy of this very class
        return marked

    @model_validator(mode="before")
    @classmethod
    def _newest_source(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        sources = data.get("sources") if isinstance(data, dict) else None
        if not sources:
            return data
        if "source" in data:
            msg = "source and sources: give one of them"
            raise ValueError(msg)
        numbers = [number for number in sources if isinstance(number, int)] if isinstance(sources, dict) else []
        return {**data, "source": sources[max(numbers)]} if numbers else data

    @model_validator(mode="after")
    def _slo_of_a_load(self) -> ModelSpec:
        if self.slo is not None and self.objective == "memory":
            msg = "slo belongs to objective: throughput or latency; memory is measured without a load"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _inputs_differ(self) -> ModelSpec:
        names = [tensor.name for tensor in self.inputs]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            msg = f"input {double[0]!r} is declared twice"
            raise ValueError(msg)
        return self


class DefaultsSpec(Part):
    """Words that hold for every model that does not say them itself."""

    targets: tuple[str, ...] = Field(defaults.TARGETS, strict=False)
    serve: str = defaults.SERVE
    objective: ObjectiveWord | None = None
    slo: SloSpec | None = None
    accuracy: AccuracySpec = AccuracySpec()
    optimize: Literal["auto", "none"] = defaults.OPTIMIZE
    quantization: QuantizationSpec = QuantizationSpec()
    batching: BatchingSpec = BatchingSpec()
    instances: Instances = (InstancesSpec(),)
    versions: VersionsSpec = VersionsSpec()


class EnsembleSpec(EnsembleWords):
    """Models that answer one request together."""

    name: ModelName


class RepoSpec(Part):
    """A whole `models.yaml`."""

    triton: Release = defaults.RELEASE
    defaults: DefaultsSpec = DefaultsSpec()
    models: tuple[ModelSpec, ...] = Field(strict=False)
    ensembles: tuple[EnsembleSpec, ...] = Field((), strict=False)

    _origin: str = PrivateAttr("the spec")
    _lines: Lines = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _has_models(self) -> RepoSpec:
        if not self.models and not self.ensembles:
            msg = "models: the list is empty"
            raise ValueError(msg)
        return self

    def read_from(self, origin: str, lines: Lines) -> RepoSpec:
        """Remember the file and its lines, for errors that only show once the models are known."""
        self._origin, self._lines = origin, lines
        return self

    def error(self, problems: Sequence[Problem]) -> SpecError:
        """All of them at their places in the file."""
        return spec_error(self._origin, problems, self._lines)
