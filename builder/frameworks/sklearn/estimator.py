"""A fitted estimator with named tensors: its inputs, its own answers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError, MachineError, SpecError
from builder.onnx_tools.exported import WISHED_OPSET, Limits, export_by
from builder.onnx_tools.ports import BATCH
from builder.samples import Request
from builder.tensors import Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

INPUT: Final = "input"
DTYPES: Final = ("float32", "float64", "int64", "int32", "bool", "string")
"""Element types that skl2onnx takes."""


def first_step(estimator: Any) -> Any:  # noqa: ANN401 - an estimator
    """The first part of a pipeline, which takes the inputs."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    return estimator


def _check_fitted(estimator: Any, path: Path) -> None:  # noqa: ANN401
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise SpecError(
            f"{path.name}: this {type(estimator).__name__} is not fitted", remedy="call its fit() and save it again"
        ) from error
    except TypeError:
        """An estimator without fit() has nothing to learn."""


def own_inputs(estimator: Any, path: Path) -> tuple[Tensor, ...]:  # noqa: ANN401
    """One matrix, or one column of texts.

    Raises:
        SpecError: the estimator takes columns of several types, or does not tell.
    """
    first = first_step(estimator)
    _check_fitted(estimator, path)
    if hasattr(first, "analyzer"):
        return (Tensor(INPUT, "string", (BATCH, 1)),)
    count = getattr(estimator, "n_features_in_", None)
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    if count is None or hasattr(first, "transformers_"):
        columns = names or [f"column_{place}" for place in range(count or 1)]
        listed = ", ".join(f"{{name: {name}, dtype: float32, shape: [batch, 1]}}" for name in columns)
        raise SpecError(
            f"{path.name}: {type(first).__name__} does not tell the types of its columns; the spec has to",
            remedy=f"add inputs, string where a column holds texts: inputs: [{listed}]",
        )
    return (Tensor(INPUT, "float32", (BATCH, int(count))),)


def check_inputs(estimator: Any, inputs: Sequence[Tensor], path: Path) -> None:  # noqa: ANN401
    """Raises SpecError where the declared inputs cannot be the estimator's."""
    for tensor in inputs:
        if tensor.dtype not in DTYPES or len(tensor.shape) != 2:  # noqa: PLR2004 - rows and columns
            raise SpecError(
                f"inputs: {tensor.describe()}: scikit-learn takes [batch, columns] of {', '.join(DTYPES)}",
            )
        if not isinstance(tensor.shape[1], int):
            raise SpecError(f"inputs: {tensor.name!r} has the dynamic axis {tensor.shape[1]!r}; columns are counted")
    wanted = getattr(estimator, "n_features_in_", None)
    got = sum(int(tensor.shape[1]) for tensor in inputs)
    if wanted is not None and wanted != got:
        raise SpecError(f"inputs: got {got} columns; {path.name} takes {wanted}")
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    if names and len(inputs) > 1 and set(names) != {tensor.name for tensor in inputs}:
        raise SpecError(f"inputs: the columns of {path.name} are {', '.join(names)}")


class SklearnSource:
    """An estimator; floats leave in the type in which they came in."""

    def __init__(
        self,
        estimator: Any,  # noqa: ANN401
        inputs: tuple[Tensor, ...],
        wanted: tuple[str, ...],
        notes: tuple[str, ...],
    ) -> None:
        self.inputs = inputs
        self.parameters: int | None = None
        self._estimator = estimator
        self._notes = notes
        self._calls = answers(estimator)
        unknown = [name for name in wanted if name not in self._calls]
        if unknown:
            raise SpecError(f"outputs: got {', '.join(unknown)}; this estimator gives {', '.join(self._calls)}")
        self._names = wanted or tuple(self._calls)
        self._float = "float64" if any(tensor.dtype == "float64" for tensor in inputs) else "float32"

    @property
    def output_names(self) -> tuple[str, ...] | None:
        return self._names

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        """Nothing: only running tells."""
        return {}

    def run(self, inputs: Arrays) -> tuple[Array, ...]:
        """The estimator's own answers."""
        table = self._table([inputs[tensor.name] for tensor in self.inputs])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(
                _plain(getattr(self._estimator, self._calls[name])(table), self._float) for name in self._names
            )

    def _table(self, arrays: Sequence[Array]) -> Any:  # noqa: ANN401 - what the estimator was trained on
        import numpy as np

        first = first_step(self._estimator)
        if hasattr(first, "analyzer"):
            return [str(text) for text in arrays[0].ravel()]
        if hasattr(self._estimator, "feature_names_in_") and hasattr(first, "transformers_"):
            return _frame(self._estimator, self.inputs, arrays)
        arrays = [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]
        if len(arrays) == 1:
            return arrays[0]
        kinds = {array.dtype for array in arrays}
        return np.concatenate([array if len(kinds) == 1 else array.astype(object) for array in arrays], axis=1)

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """By skl2onnx in the inputs' own type; where answers differ, computing in float64 as scikit-learn does."""
        from builder.frameworks.sklearn.convert import convert

        highest = min(opset, WISHED_OPSET)
        routes = {"skl2onnx": partial(convert, self._estimator, signature, requests[0], highest)}
        if any(tensor.dtype == "float32" for tensor in self.inputs):
            routes["skl2onnx float64"] = partial(convert, self._estimator, signature, requests[0], highest, double=True)
        route, reasons, notes = export_by(routes, path, signature, requests, Limits(opset, ir_version))
        if not route:
            raise BuildError(
                f"skl2onnx could not convert the estimator. {' | '.join(reasons)}",
                remedy="give an estimator that skl2onnx knows, or declare the inputs float64: inputs: in the spec",
            )
        return route, (*self._notes, *notes)


def answers(estimator: Any) -> dict[str, str]:  # noqa: ANN401
    """Output → method, named as skl2onnx does.

    Raises:
        SpecError: nothing to call.
    """
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    if is_classifier(estimator):
        return {"label": "predict"} | ({"probabilities": "predict_proba"} if _has(estimator, "predict_proba") else {})
    if is_outlier_detector(estimator):
        return {"label": "predict"} | ({"scores": "decision_function"} if _has(estimator, "decision_function") else {})
    if is_clusterer(estimator) and _has(estimator, "predict"):
        return {"label": "predict"} | ({"scores": "transform"} if _has(estimator, "transform") else {})
    for method in ("predict", "transform"):
        if _has(estimator, method):
            return {"variable": method}
    raise SpecError(
        f"a {type(estimator).__name__} has neither predict nor transform",
        remedy="pickle a fitted estimator or pipeline",
    )


def _has(estimator: Any, method: str) -> bool:  # noqa: ANN401
    return callable(getattr(estimator, method, None))


def _plain(answer: Any, floats: str) -> Array:  # noqa: ANN401 - an array, a sparse matrix, or a list of them
    import numpy as np

    if isinstance(answer, list):
        raise SpecError(
            "the estimator answers with one table for each of several outputs, which no tensor can be",
            remedy="choose outputs: [label] in the spec",
        )
    array: Array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    return array if array.dtype.kind == "O" else array.astype(floats)


def _frame(estimator: Any, inputs: Sequence[Tensor], arrays: Sequence[Array]) -> Any:  # noqa: ANN401 - a DataFrame
    try:
        import pandas as pd
    except ImportError as error:
        raise MachineError(
            "the estimator was trained on a table with named columns, which needs pandas", remedy="pip install pandas"
        ) from error
    columns = {tensor.name: array[:, 0] for tensor, array in zip(inputs, arrays, strict=True)}
    return pd.DataFrame({str(name): columns[str(name)] for name in estimator.feature_names_in_})
