"""Triton backends: one module each, named as Triton names it. A new backend is one file and one line below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from builder.measurement import PrecisionProof, PreflightReport
from builder.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a backend converts.

    `model` is the file to convert: the prepared ONNX in the precision of `GRAPHS`, or what the export wrote in the
    backend's `FORMAT`. `export` is
    the export's folder (samples, reference, other formats of the source), `options` what the spec says for this
    backend, `shared` a folder that outlives the work, for caches such as timings. `packages` are served with the
    artefact.
    """

    model: Path
    export: Path
    signature: Signature
    precision: str
    release: str
    options: Mapping[str, Any]
    shared: Path
    packages: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How an artefact runs: the target's precision, and what the spec says for this backend."""

    precision: str = "fp32"
    options: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """An artefact loaded in its own library, with the settings that Triton's backend uses by default."""

    @property
    def compute(self) -> str:
        """What it really computes in and on: `fp32, CPUExecutionProvider`."""

    def run(self, inputs: Arrays) -> Arrays: ...

    def precision_proof(self) -> PrecisionProof | None:
        """Which types it really stores and computes in, None where nothing can tell; nothing runs after it."""

    def close(self) -> None: ...


class Backend(Protocol):
    """A module of this folder."""

    GRAPHS: Mapping[str, str]
    """Precision of a target → precision of the ONNX graph it is converted from."""
    FORMAT: str
    """What it is converted from: `onnx`, prepared by the precision of `GRAPHS`; `torchscript`, `python` as exported."""
    DIALECT: str
    """The graph it takes: `onnx`, `onnxruntime` (its own operators too), `tensorrt` (int8 without zero points)."""
    LIBRARIES: tuple[str, ...]
    """Distributions whose versions decide the artefact and the measurement."""
    EXTRA: str
    """`pip install 'build-repo[EXTRA]'` brings the libraries; empty: they are in the core."""
    FILENAME: str
    """The file that Triton's backend looks for in a version folder."""
    CAN_BATCH: bool
    """Whether max_batch_size > 0 is safe in the native backend for requests of any size."""

    OPTIONS_DECIDE: bool
    """Whether the spec's words for this backend decide the artefact, and not only how it runs."""

    DEFERS: bool
    """Whether it needs hardware that a build machine may lack: `--defer` then records the target for a later build."""

    def missing(self) -> tuple[str, str] | None:
        """What this machine lacks for the backend, and the remedy; None when it can work. No heavy import."""

    def refuses(self, signature: Signature, release: str) -> str | None:
        """Why the native backend cannot serve this signature, in its words; None when it can."""

    def convert(self, job: Conversion, out: Path) -> Signature:
        """Write `out/FILENAME` (and what belongs to it); returns the ports as the artefact itself declares them."""

    def open_session(self, folder: Path, signature: Signature, settings: Settings) -> Session:
        """Load `folder/FILENAME` as Triton will with `config_fields`; `signature` is the source's (names and order)."""

    def config_fields(self, settings: Settings) -> Mapping[str, Any]:
        """Fields of ModelConfig, in Triton's names, that make the server run the artefact as it was measured."""


BACKENDS: Final[dict[str, str]] = {
    "onnxruntime": "builder.backends.onnxruntime",
    "onnxruntime+tensorrt": "builder.backends.onnxruntime_tensorrt",
    "openvino": "builder.backends.openvino",
    "pytorch": "builder.backends.pytorch",
    "python": "builder.backends.python",
    "tensorrt": "builder.backends.tensorrt",
}


NAMES: Final = {"onnx": "ONNX", "torchscript": "TorchScript", "python": "Python code"}
"""Values of `FORMAT`, as people write them."""


def backend_module(word: str) -> Backend:
    """The module for a word that the spec has already validated."""
    return cast("Backend", import_module(BACKENDS[word]))


class DeviceBound(Protocol):
    """What a module has beside `Backend`'s when its artefact belongs to a device and to one version of a library."""

    PREFLIGHT_LIBRARIES: tuple[str, ...]
    """Distributions whose versions decide a pre-flight."""

    def device_facts(self) -> Mapping[str, str]:
        """What of this machine decides the artefact: it enters the key of the conversion."""

    def mismatch(self, release: str, options: Mapping[str, Any]) -> tuple[str, str] | None:
        """Why an artefact built here does not load in the release's server, and the remedy; None when it does."""

    def can_preflight(self) -> bool:
        """Whether a deferred target can be tried here without the device."""

    def preflight(self, job: Conversion) -> PreflightReport:
        """Try the conversion; nothing that it makes is kept."""


DEVICE_BOUND: Final[dict[str, str]] = {"tensorrt": "builder.backends.tensorrt"}


def device_bound(word: str) -> DeviceBound | None:
    """The module once more, where its artefact belongs to a device; None where any machine can build it."""
    return cast("DeviceBound", import_module(DEVICE_BOUND[word])) if word in DEVICE_BOUND else None


def refuses_source(word: str, source: str, formats: Sequence[str]) -> str | None:
    """Why a backend has nothing to convert, where a source can be written in these formats; None where it has."""
    needed = backend_module(word).FORMAT
    if needed in formats:
        return None
    return (
        f"Triton's {word} backend loads {NAMES[needed]}, and a source of the format {source} can only be written as "
        f"{' or '.join(NAMES[item] for item in formats)}"
    )
