"""A lower precision of an ONNX graph: one module each, made once and taken by every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from builder.measurement import QuantizationReport
from builder.tensors import Signature
from builder.work import Quantization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """The inputs of requests to calibrate on; `digest` is their file's, `rows` how many rows they hold together."""

    digest: str
    rows: int
    requests: tuple[Arrays, ...]


@dataclass(frozen=True, slots=True)
class PrecisionJob:
    """What a precision is made of.

    `dialect` is the one of `Prepare`. `calibration` is None where the export kept no rows for it. `shared` is a folder
    that outlives the work: calibration tables are kept there.
    """

    precision: str
    dialect: str
    signature: Signature
    quantization: Quantization | None
    calibration: CalibrationSet | None
    shared: Path
    opset: int
    ir_version: int


class Precision(Protocol):
    """A module of this folder."""

    def convert(
        self, model_path: Path, out_path: Path, job: PrecisionJob, keep: frozenset[str]
    ) -> QuantizationReport | None:
        """Write the graph in the precision; the nodes named in `keep` stay fp32, inputs and outputs keep their types.

        Raises:
            BuildError: the graph has nothing to convert, or the library refuses it.
        """


PRECISIONS: Final[Mapping[str, str]] = {
    "fp16": "builder.onnx_tools.precision.half",
    "bf16": "builder.onnx_tools.precision.half",
    "int8": "builder.onnx_tools.precision.int8",
}


def precision_module(word: str) -> Precision:
    """The module for a precision below fp32."""
    return cast("Precision", import_module(PRECISIONS[word]))
