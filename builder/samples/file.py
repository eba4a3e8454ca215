"""Real samples from an `.npz`: checked against the model's inputs before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.onnx_tools.reading import short
from builder.samples.casting import cast_floats
from builder.samples.folder import read_folder
from builder.samples.making import batch_axes
from builder.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The user's samples: entry `i` of every array belongs to row (or request) `i`."""

    arrays: dict[str, Array]
    labels: Array | None
    count: int
    notes: tuple[str, ...] = ()
    sequence: Array | None = None
    """Which sequence each row is a step of."""


def read_samples(
    path: Path, labels: str | None, inputs: Sequence[Tensor], sequence_id: str | None = None
) -> SampleRows:
    """Read and check the file.

    Raises:
        SpecError: neither an `.npz` nor a folder of files, or names, dtypes, shapes, rows or labels that do not fit.
    """
    members = read_folder(path, inputs) if path.is_dir() else _read_npz(path)
    return fit_samples(members, path, labels, inputs, sequence_id)


def fit_samples(
    members: Arrays, path: Path, labels: str | None, inputs: Sequence[Tensor], sequence_id: str | None = None
) -> SampleRows:
    """Check the arrays of a file, or of something else that `path` names.

    Raises:
        SpecError: names, dtypes, shapes, rows or labels that do not fit.
    """
    label_array = _labels(members, labels, path)
    sequence = _labels(members, sequence_id, path, "sequence_id")
    names = [tensor.name for tensor in inputs]
    rest = {name: array for name, array in members.items() if name not in (labels, sequence_id)}
    if set(rest) != set(names):
        raise SpecError(
            f"samples {path.name} holds the arrays {', '.join(sorted(rest)) or 'none'}; "
            f"the model's inputs are {', '.join(names)}",
            remedy="name the arrays like the inputs" + _labels_hint(rest, names),
        )
    notes: list[str] = []
    batched = bool(batch_axes(inputs))
    arrays = {tensor.name: _fitted(rest[tensor.name], tensor, batched, path, notes) for tensor in inputs}
    _check_names(arrays, inputs, batched, path)
    counts = {name: len(array) for name, array in arrays.items()}
    if label_array is not None:
        counts[labels or "labels"] = len(label_array)
    if sequence is not None:
        counts[sequence_id or "sequence_id"] = len(sequence)
    if len(set(counts.values())) != 1 or not all(counts.values()):
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SpecError(
            f"samples {path.name}: the arrays must have the same number of rows, at least one; got {shown}",
            remedy="give every array, the labels too, one entry for each sample",
        )
    return SampleRows(arrays, label_array, next(iter(counts.values())), tuple(notes), sequence)


def _read_npz(path: Path) -> dict[str, Array]:
    import numpy as np

    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            with stored:
                return {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise SpecError(f"samples: no such file: {path}", remedy="check samples: path") from error
    except Exception as error:
        raise SpecError(
            f"samples {path.name} is no readable .npz: {short(error)}",
            remedy="write it with numpy.savez(FILE, INPUT=array, ...); arrays of Python objects are not accepted",
        ) from error
    raise SpecError(
        f"samples {path.name} is no readable .npz: it holds one array, without a name",
        remedy="write it with numpy.savez(FILE, INPUT=array, ...)",
    )


def _labels(members: Mapping[str, Array], name: str | None, path: Path, what: str = "labels") -> Array | None:
    if name is None:
        return None
    if name not in members:
        raise SpecError(f"samples {path.name} has no array {name!r} for the {what}; it holds {', '.join(members)}")
    array = members[name]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        one_hot = f"; of one-hot rows that is {name}.argmax(axis=1)" if array.ndim == 2 else ""  # noqa: PLR2004
        raise SpecError(
            f"samples {path.name}: {what} {name!r} must be one integer a row; got {array.dtype}{list(array.shape)}",
            remedy=f"write them as whole numbers in a type of integers, one a row{one_hot}",
        )
    return array


def _labels_hint(found: Mapping[str, Array], names: Sequence[str]) -> str:
    extra = [name for name in found if name not in names]
    return f"; if {extra[0]!r} holds class numbers, say samples: {{labels: {extra[0]}}}" if len(extra) == 1 else ""


def _fitted(array: Array, tensor: Tensor, batched: bool, path: Path, notes: list[str]) -> Array:
    array = _cast(array, tensor, path, notes)
    shape = tensor.shape if batched else ("requests", *tensor.shape)
    fits = array.ndim == len(shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(shape, array.shape, strict=True)
    )
    if not fits:
        leading = "" if batched else " (one entry along the first axis is one request)"
        raise SpecError(
            f"samples {path.name}: {tensor.name!r} got shape {list(array.shape)}, "
            f"expected [{','.join(map(str, shape))}]{leading}"
        )
    return array


def _cast(array: Array, tensor: Tensor, path: Path, notes: list[str]) -> Array:
    import numpy as np

    if tensor.dtype == "string":
        if array.dtype.kind in "USO":
            return array.astype(object)
    elif array.dtype.name == tensor.dtype:
        return array
    elif array.dtype.kind == "f" and tensor.dtype in ("float16", "float32", "bfloat16"):
        notes.append(f"samples {tensor.name!r}: {array.dtype} cast to {tensor.dtype}")
        cast, lost = cast_floats(array, tensor.dtype)
        if lost:
            raise SpecError(
                f"samples {path.name}: {tensor.name!r} reaches {lost:.6g}, which {tensor.dtype} does not hold",
                remedy="give values as the model will see them; where io: fp16 made the input so narrow, leave it out",
            )
        return cast
    elif tensor.dtype != "bfloat16" and np.can_cast(array.dtype, tensor.dtype, "safe"):
        notes.append(f"samples {tensor.name!r}: {array.dtype} cast to {tensor.dtype}")
        return array.astype(tensor.dtype)
    raise SpecError(f"samples {path.name}: {tensor.name!r} got {array.dtype}, expected {tensor.dtype}")


def _check_names(arrays: Arrays, inputs: Sequence[Tensor], batched: bool, path: Path) -> None:
    """Axes of one name must have one size."""
    sizes: dict[str, tuple[int, str]] = {}
    for tensor in inputs:
        shape = arrays[tensor.name].shape if batched else arrays[tensor.name].shape[1:]
        for dim, size in zip(tensor.shape, shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, (size, tensor.name))[0] != size:
                known, other = sizes[dim]
                raise SpecError(
                    f"samples {path.name}: axis {dim!r} has size {known} in {other!r} and {size} in {tensor.name!r}"
                )
