"""Triton's python backend: a step in Python code, run by the interpreter of the server."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.backends import Conversion, Settings
from builder.errors import BuildError, SpecError
from builder.frameworks.python.code import parse
from builder.measurement import PrecisionProof
from builder.onnx_tools.files import link_file
from builder.releases import get_release
from builder.resources import PACKAGE
from builder.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

GRAPHS = {"native": "native"}
"""Code has the precision it has."""
FORMAT = "python"
DIALECT = ""
LIBRARIES = ("numpy",)
EXTRA = ""
FILENAME = "model.py"
CAN_BATCH = True
OPTIONS_DECIDE = True
DEFERS = False

ENVIRONMENT_FILE: Final = "environment.tar.gz"
"""Beside the configuration, for every version."""
WRAPPER: Final = PACKAGE / "frameworks" / "python" / "model.py"


def missing() -> tuple[str, str] | None:
    """Nothing: Python is here."""
    return None


def refuses(signature: Signature, release: str) -> str | None:  # noqa: ARG001 - the same in every release
    """A type that numpy lacks."""
    for tensor in signature.tensors:
        if tensor.dtype == "bfloat16":
            return f"tensor '{tensor.name}': TYPE_BF16 not currently supported, since numpy has no such type"
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """The step's files as they were exported, and beside them the model that runs them.

    Raises:
        BuildError: the release's Python is too old for the code.
    """
    major, minor = map(int, get_release(job.release).python.split("."))
    for file in sorted((job.model / "code").rglob("*.py")):
        try:
            parse(file, (major, minor))
        except SpecError as error:
            raise BuildError(
                f"Triton {job.release} runs Python {major}.{minor}: {error.message}", remedy=error.remedy
            ) from error
    _link_files(job.model, out)
    if job.packages is not None:
        _link_files(job.packages, out / "packages")
    shutil.copyfile(WRAPPER, out / FILENAME)
    return job.signature


def _link_files(source: Path, out: Path) -> None:
    for file in sorted(item for item in source.rglob("*") if item.is_file()):
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        link_file(file, target)


class PythonSession:
    """The step run in this process as the server runs it, but for the packages: this Python has its own."""

    def __init__(self, folder: Path) -> None:
        from builder.frameworks.python.model import ContractError, Step, StepError

        try:
            self._step = Step(folder)
        except (StepError, ContractError) as error:
            raise BuildError(
                f"the step does not load from the folder that the server gets: {error}",
                remedy="a file that it reads must be copied with it: source: {files: {NAME: PATH}} in the spec",
            ) from error

    @property
    def compute(self) -> str:
        return "Python, CPU"

    def run(self, inputs: Arrays) -> Arrays:
        return self._step.run({name: array.copy() for name, array in inputs.items()})

    def precision_proof(self) -> PrecisionProof | None:
        """Nobody can tell what code computes in."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def open_session(folder: Path, signature: Signature, settings: Settings) -> PythonSession:  # noqa: ARG001
    """Load `folder/model.py`'s step.

    Raises:
        BuildError: its code fails.
    """
    return PythonSession(folder)


def config_fields(settings: Settings) -> Mapping[str, Any]:
    """Where an environment of the step's own lies; the server unpacks it."""
    if "environment" not in settings.options:
        return {}
    return {"parameters": {"EXECUTION_ENV_PATH": {"string_value": f"$$TRITON_MODEL_DIRECTORY/{ENVIRONMENT_FILE}"}}}
