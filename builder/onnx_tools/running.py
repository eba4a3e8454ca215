"""Run an ONNX file in onnxruntime with every optimisation off: a reference that shares no rewriting with the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuildError, MachineError
from builder.onnx_tools.reading import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


def open_plain(model: Path | bytes) -> Any:  # noqa: ANN401 - onnxruntime.InferenceSession
    """A CPU session without graph optimisation.

    Raises:
        BuildError: onnxruntime refuses the model; its own words.
        MachineError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(f"onnxruntime cannot be imported: {error}", remedy="pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        source = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BuildError(f"onnxruntime cannot load the model: {short(error)}") from error


def run_plain(session: Any, names: Sequence[str], inputs: Arrays) -> tuple[NDArray[np.generic], ...]:  # noqa: ANN401
    """The outputs `names`, in that order."""
    import numpy as np

    feeds = {name: np.ascontiguousarray(array) if array.ndim else array for name, array in inputs.items()}
    return tuple(np.asarray(value) for value in session.run(list(names), feeds))
