"""The nouns of a build: targets, works and their keys.

A work is a frozen record of every input that decides its result; its key is the digest of that record. "Building" is
making the folder `<cache>/<kind>/<key>/` exist. A work never holds a machine path that does not matter to the result:
`source_path` is where to read, `source_digest` is what enters the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from builder.records import canonical, to_json
from builder.tensors import Dim, Signature, Tensor

ONLY_PRECISION = {"python": "native"}
"""Backends that have one precision, which is not fp32."""


@dataclass(frozen=True, slots=True)
class Target:
    """A backend in Triton's word and a precision: `openvino:fp16`."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"

    @property
    def suffix(self) -> str:
        """What `serve: all` puts behind the model's name: `openvino_fp16`."""
        return f"{self.backend.replace('+', '_')}_{self.precision}"


def parse_target(text: str) -> Target:
    """Split `BACKEND:PRECISION`; a missing precision is fp32, or the only one that the backend has.

    Raises:
        ValueError: the text is no target.
    """
    backend, _, precision = text.partition(":")
    if not backend or ":" in precision:
        msg = f"{text!r} is not BACKEND:PRECISION, for example onnxruntime:fp32"
        raise ValueError(msg)
    return Target(backend, precision or ONLY_PRECISION.get(backend, "fp32"))


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file or folder that belongs to a step in Python, by the name of the argument that takes its path."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class OutputShape:
    """The full shape of an output as the spec declares it; a name is any size."""

    name: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class SourceRef:
    """The source model: where it is read, and what decides its content.

    `model` is `module:callable` returning the network, `args` its keyword arguments as canonical JSON; `import_root`
    is put on the import path for it. `digest` covers the files of `path` and the code of `model`. A step in Python has
    a `function` (or class) in the file at `path`, `files` beside its arguments, `requirements` as in the spec, and
    outputs whose `shapes` are declared.
    """

    format: str
    path: str
    digest: str
    model: str | None = None
    args: str = "{}"
    import_root: str = ""
    allow_pickle: bool = False
    signature: str | None = None
    function: str | None = None
    files: tuple[FileRef, ...] = ()
    requirements: tuple[str, ...] = ()
    shapes: tuple[OutputShape, ...] = ()
    environment: str | None = None
    """The digest of an archive that is served in place of packages."""


@dataclass(frozen=True, slots=True)
class SamplesRef:
    """Real samples (`path`, `digest`, the array holding labels) or seeded random ones (`path` None)."""

    path: str | None
    digest: str
    labels: str | None
    seed: int
    max_batch_size: int
    calibration: int = 0
    """At most so many rows are kept apart for calibration; the answers are judged on the others."""
    sequence_id: str | None = None
    """The array that says which sequence a row belongs to."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How int8 is made: `mode` auto, static or dynamic; `calibrator` minmax, entropy or percentile."""

    mode: str
    calibrator: str
    per_channel: bool


@dataclass(frozen=True, slots=True)
class Search:
    """The gates that a lower precision must meet, and the seconds that finding fp32 nodes for it may take."""

    gates: dict[str, Any]
    budget_s: float


@dataclass(frozen=True, slots=True)
class StateRef:
    """An input that takes a state and the output that gives the next; the file at `path` holds the first (else 0)."""

    input: str
    output: str
    path: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SequenceRef:
    """A model that is asked in sequences; `controls` pairs a kind (`start`) with the input that Triton sets."""

    states: tuple[StateRef, ...]
    controls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FilledRef:
    """An input that Triton fills for each batch, from the sizes of the ragged input `of`."""

    name: str
    kind: str
    of: str


@dataclass(frozen=True, slots=True)
class RaggedRef:
    """A model that takes requests of unequal sizes in one batch; `inputs` have the shape of what one request sends."""

    inputs: tuple[OutputShape, ...]
    filled: tuple[FilledRef, ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a resolved set; `sha256` is its wheel's, empty where the index does not tell."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Packages:
    """A set of wheels → `packages/`, for one Python.

    Without `platforms` they are for the interpreter that installs them, `python` then only names it.
    """

    python: str
    platforms: tuple[str, ...]
    pins: tuple[Pin, ...]
    kind: Literal["packages"] = "packages"


@dataclass(frozen=True, slots=True)
class Export:
    """Source → what the targets are made of (`model.onnx`, `model.pt`, `step/`), `export.json`, `reference.npz`.

    `inputs` and `outputs` are what the spec declares (empty: what the source itself says; an output of the spec is
    only a name). `opset` and `ir_version` are the highest that the release loads. `formats` are what the targets need,
    `onnx`, `torchscript` or `python`; one that the source cannot be written as fails only the targets that need it.
    """

    source: SourceRef
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    samples: SamplesRef
    opset: int
    ir_version: int
    libraries: dict[str, str]
    code: str
    sequence: SequenceRef | None = None
    ragged: RaggedRef | None = None
    formats: tuple[str, ...] = ("onnx",)
    packages: str | None = None
    """A set for this Python, that the source's code imports."""
    io: Literal["fp16"] | None = None
    """In which type float32 inputs and outputs travel, where it is another."""
    kind: Literal["export"] = "export"


@dataclass(frozen=True, slots=True)
class Prepare:
    """`model.onnx` of an export → `model.onnx` in a precision, optimised, and `prepare.json`.

    `dialect` is `onnx` (standard operators, for every backend), `onnxruntime` (its own fused ones too) or `tensorrt`
    (int8 without zero points). The machine is in the key, since transforms are kept by what they measured.
    `quantization` belongs to int8 alone, `search` to every precision below fp32.
    """

    export: str
    precision: str
    dialect: str
    optimize: bool
    quantization: Quantization | None
    search: Search | None
    opset: int
    ir_version: int
    machine: dict[str, str]
    libraries: dict[str, str]
    code: str
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True)
class Convert:
    """The prepared (else the exported) model → the target's files and `convert.json`.

    `prepare` is None where the target is not made of ONNX. `options` is what the spec says for this backend and what
    decides the artefact, as canonical JSON; how it runs is in the measurement's. `device` is what of the machine
    decides the artefact, empty where any machine makes the same. With `preflight` the conversion is only tried, without
    the device, and gives `preflight.json` alone.
    """

    export: str
    prepare: str | None
    target: Target
    release: str
    options: str
    libraries: dict[str, str]
    code: str
    device: dict[str, str] = field(default_factory=dict)
    preflight: bool = False
    packages: str | None = None
    """A set for the release's Python, that is served with the artefact."""
    kind: Literal["convert"] = "convert"


@dataclass(frozen=True, slots=True)
class Measure:
    """The artefact on the samples → `measurement.json`; numbers only, no verdict.

    `options` is all that the spec says for this backend, as canonical JSON.
    """

    export: str
    convert: str
    target: Target
    options: str
    machine: dict[str, str]
    libraries: dict[str, str]
    code: str
    packages: str | None = None
    kind: Literal["measure"] = "measure"


@dataclass(frozen=True, slots=True)
class Profile:
    """The artefact at growing batches, by the ways to run it → `profile.json`: what a search for settings starts from.

    `ways` are words of the spec for this backend, each as canonical JSON; `rows` is what one request holds.
    """

    export: str
    convert: str
    target: Target
    ways: tuple[str, ...]
    rows: int
    largest: int
    machine: dict[str, str]
    libraries: dict[str, str]
    code: str
    packages: str | None = None
    kind: Literal["profile"] = "profile"


@dataclass(frozen=True, slots=True)
class StepRef:
    """A step of an ensemble as it was asked for. `inputs` and `outputs` pair the member's names with the ensemble's.

    Pairs, since a tensor may be named like a field that is no part of the key.
    """

    member: str
    wires: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EnsembleRef:
    """An ensemble as it was asked for; what is empty follows from the steps."""

    name: str
    steps: tuple[StepRef, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRef:
    """A model of an earlier build, whose stored artefact stands for its source; `path` is its version folder."""

    member: str
    path: str
    digest: str
    target: Target
    options: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Answer:
    """One step of an ensemble, answered by its member's source → `tensors.npz`; the last makes `ensemble.json` too.

    `ensembles` are the one asked for and those inside it. Their steps, one after the other, are `members`; this one is
    `members[len(before)]`, and `before` are the keys of the steps before it. `exports` pairs members with the keys of
    their exports, `stored` are the others. `export` is this member's own record, None where it is stored.
    """

    ensembles: tuple[EnsembleRef, ...]
    members: tuple[str, ...]
    before: tuple[str, ...]
    exports: tuple[tuple[str, str], ...]
    stored: tuple[StoredRef, ...]
    export: Export | None
    samples: SamplesRef | None
    max_rows: int
    libraries: dict[str, str]
    code: str
    kind: Literal["answer"] = "answer"

    @property
    def member(self) -> str:
        """Whose answers these are."""
        return self.members[len(self.before)]


Work = Packages | Export | Prepare | Convert | Measure | Profile | Answer

NOT_IN_KEY = ("path", "import_root")
"""Fields that say where to read; the digest beside them says what was read."""


def work_key(work: Work) -> str:
    """The digest of everything that decides the result, as 32 hex digits."""
    return hashlib.sha256(canonical(portable(to_json(work)))).hexdigest()[:32]


def portable(data: Any) -> Any:  # noqa: ANN401 - plain JSON
    """A work as JSON without the places it is read from: the same on every machine."""
    if isinstance(data, dict):
        return {key: portable(item) for key, item in data.items() if key not in NOT_IN_KEY}
    if isinstance(data, list):
        return [portable(item) for item in data]
    return data


def work_needs(work: Work) -> tuple[tuple[str, str], ...]:
    """(kind, key) of the works that must exist before this one."""
    if isinstance(work, Packages):
        return ()
    if isinstance(work, Prepare):
        return (("export", work.export),)
    if isinstance(work, Answer):
        exports = {key: ("export", key) for _, key in work.exports}
        packages = (("packages", work.export.packages),) if work.export and work.export.packages else ()
        return (*packages, *exports.values(), *(("answer", key) for key in work.before))
    packages = (("packages", work.packages),) if work.packages else ()
    if isinstance(work, Export):
        return packages
    if isinstance(work, Convert):
        return (("export", work.export), *((("prepare", work.prepare),) if work.prepare else ()), *packages)
    return (("export", work.export), ("convert", work.convert), *packages)
