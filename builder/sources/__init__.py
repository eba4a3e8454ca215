"""Source formats: one module each, found by the word of the spec. A new format is one file and one line below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

from builder.errors import MachineError
from builder.libraries import library_versions
from builder.samples import Request
from builder.tensors import Dim, Signature, Tensor
from builder.work import SourceRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Description:
    """What `inspect` and `init` say of a file without running it. `signature` is None where the file does not tell."""

    format: str
    signature: Signature | None
    opset: int | None = None
    ir_version: int | None = None
    operators: dict[str, int] | None = None
    parameters: int | None = None
    notes: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    """Where the file holds several, by name: the one of `signature` first."""


class LoadedSource(Protocol):
    """A source in its own framework."""

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """Names in order where the source has names; None where only running it tells how many there are."""

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        """What the file says of its outputs' shapes (None: any size); it may be wrong, running it decides."""

    @property
    def parameters(self) -> int | None: ...

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The framework's own outputs, in order."""

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """Write `path` with exactly the names of `signature`; returns the route taken and notes for the user.

        `requests` hold the source's own outputs: an exporter's result is compared with them.
        """


class TorchScriptSource(LoadedSource, Protocol):
    """A loaded source of a row with `torchscript` in its `FORMATS`."""

    def to_torchscript(
        self, path: Path, *, signature: Signature, requests: Sequence[Request]
    ) -> tuple[str, tuple[str, ...]]:
        """Write `path` for Triton's pytorch backend; returns the route taken and notes for the user."""


class CodeSource(LoadedSource, Protocol):
    """A loaded source of a row with `python` in its `FORMATS`."""

    def to_python(self, path: Path, *, signature: Signature) -> tuple[str, tuple[str, ...]]:
        """Write the folder `path` for Triton's python backend; returns the route taken and notes for the user."""


@runtime_checkable
class OwnSamples(Protocol):
    """A loaded source that may know inputs which mean something to it."""

    def sample_rows(self, seed: int) -> Arrays | None:
        """As the arrays of an `.npz` of samples; None where random ones will do."""


class Source(Protocol):
    """A module of this folder."""

    LIBRARIES: tuple[str, ...]
    """Distributions whose versions decide the result."""
    EXTRA: str
    """The extra of build-repo that installs them; empty where the core has them."""
    FORMATS: tuple[str, ...]
    """What a loaded source can be written as, if the model allows: `onnx`, `torchscript`, `python`."""

    def recognise(self, path: Path) -> bool:
        """By content, cheaply, with no framework imported."""

    def describe(self, path: Path) -> Description:
        """Raises SpecError when the file is damaged."""

    def screen(self, source: SourceRef) -> None:
        """Refuse from the file's bytes, before any work, what would run code and the spec does not allow.

        Raises:
            SpecError: `allow_pickle` is missing.
        """

    def load(self, source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> LoadedSource:
        """Raises SpecError for what the user must mend, BuildError for what the framework refuses."""


SOURCES: Final[dict[str, str]] = {
    "onnx": "builder.sources.onnx_model",
    "torchscript": "builder.sources.torchscript",
    "torch_export": "builder.sources.torch_export",
    "torch_state_dict": "builder.sources.torch_state_dict",
    "huggingface": "builder.sources.huggingface",
    "sklearn": "builder.sources.sklearn_model",
    "torch_pickle": "builder.sources.torch_pickle",
    "tf_saved_model": "builder.sources.tf_saved_model",
    "keras": "builder.sources.keras_model",
    "tf_checkpoint": "builder.sources.tf_checkpoint",
    "python": "builder.sources.python_step",
}
"""Word in the spec → module. The order is the order in which a file's content is tried."""


def source_module(word: str) -> Source:
    """The module for a word that the spec has already validated."""
    return cast("Source", import_module(SOURCES[word]))


def require(word: str) -> None:
    """Check that the libraries of a format are installed, without importing them.

    Raises:
        MachineError: one is absent; the line that installs it.
    """
    source = source_module(word)
    absent = [name for name, version in library_versions(source.LIBRARIES).items() if version == "absent"]
    if absent:
        extra = f"[{source.EXTRA}]" if source.EXTRA else ""
        raise MachineError(
            f"a source of the format {word} needs {', '.join(absent)}, which is not installed",
            remedy=f"pip install 'build-repo{extra}'",
        )
