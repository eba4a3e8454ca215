"""The first node of an ONNX graph at which a batch and its rows alone part: why a model cannot be batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from builder.errors import BuildError
from builder.onnx_tools.reading import read_onnx, short
from builder.onnx_tools.values import open_exposed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, NDArray[np.generic]]

TOLERANCE: Final = 1e-3
"""As for whole models: another order of summation is no difference."""
CHUNK: Final = 64
"""Tensors held at a time."""

Verdict = Literal["same", "parted", "shared"]


def first_difference(onnx_path: Path, batch: Arrays, rows: Sequence[Arrays]) -> str | None:
    """`name (OpType)` of the first node whose rows differ, running without graph optimisation.

    `batch` are the inputs of some rows together, `rows` the same rows alone, in order. None where no node differs.

    Raises:
        BuildError: onnxruntime cannot run the rows both ways.
    """
    model = read_onnx(onnx_path)
    producers = {name: node for node in model.graph.node for name in node.output if name}
    try:
        return _search(open_exposed(model, onnx_path.parent), producers, batch, rows)
    except Exception as error:
        raise BuildError(f"{onnx_path.name} does not run node by node: {short(error)}") from error


def _search(session: Any, producers: Mapping[str, Any], batch: Arrays, rows: Sequence[Arrays]) -> str | None:  # noqa: ANN401
    """Nodes stand in topological order in a valid file, so the first tensor found is the first node."""
    shared: set[str] = set()
    names = list(producers)
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        together = session.run(chunk, dict(batch))
        alone = [session.run(chunk, dict(row)) for row in rows]
        for place, name in enumerate(chunk):
            verdict = _judge(together[place], [answers[place] for answers in alone])
            if verdict == "shared":
                shared.add(name)
            elif verdict == "parted":
                node = _origin(name, producers, shared)
                return f"{node.name or node.output[0]} ({node.op_type})"
    return None


def _origin(name: str, producers: Mapping[str, Any], shared: set[str]) -> Any:  # noqa: ANN401
    """Back along tensors that all rows share, such as a mean over the batch: there the rows met."""
    while True:
        node = producers[name]
        earlier = next((source for source in node.input if source in shared), None)
        if earlier is None:
            return node
        name = earlier


def _judge(together: object, alone: Sequence[object]) -> Verdict:
    """`shared`: a float tensor without rows whose values depend on the batch around them."""
    import numpy as np

    if not isinstance(together, np.ndarray) or not all(isinstance(part, np.ndarray) for part in alone):
        return "same"
    parts = [part for part in alone if isinstance(part, np.ndarray)]
    axis = _row_axis(together.shape, [part.shape for part in parts])
    if axis is not None:
        return "same" if _close(together, np.concatenate(parts, axis=axis)) else "parted"
    if together.dtype.kind == "f" and all(part.shape == together.shape for part in parts):
        return "same" if any(_close(together, part) for part in parts) else "shared"
    return "same"


def _row_axis(together: tuple[int, ...], alone: Sequence[tuple[int, ...]]) -> int | None:
    """The axis along which the rows lie one after the other: its sizes add up and all others agree."""
    for axis, size in enumerate(together):
        rest = together[:axis] + together[axis + 1 :]
        fits = all(len(shape) == len(together) and shape[:axis] + shape[axis + 1 :] == rest for shape in alone)
        if fits and size == sum(shape[axis] for shape in alone):
            return axis
    return None


def _close(left: Any, right: Any) -> bool:  # noqa: ANN401 - arrays of any type
    import numpy as np

    if left.dtype.kind != "f":
        return bool((left == right).all())
    with np.errstate(invalid="ignore"):
        gap = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, np.abs(left - right))
    scale = float(np.max(np.abs(right), where=np.isfinite(right), initial=0.0))
    return bool(np.max(gap, initial=0.0) <= TOLERANCE * scale)
